"""The new graph under construction: values with known axes, products, linear forms."""
