"""The ops, declared by subject; `ssmc.ir.table` gathers them."""
