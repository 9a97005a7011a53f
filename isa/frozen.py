"""An immutable mapping: what programs hold instead of dictionaries, so that they can be shared, hashed and
sent to workers.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class FrozenMap(Mapping[K, V_co]):
    """A mapping that cannot be changed. Keeps its order, compares by value with any mapping, hashes when
    its values do.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V_co] | None = None) -> None:
        self._items: dict[K, V_co] = dict(items or {})

    def __getitem__(self, key: K) -> V_co:
        return self._items[key]

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return self._items.get(key, default)

    def pick(self, getter: Callable[[Mapping[K, V_co]], T]) -> T:
        """What `getter`, as an `operator.itemgetter`, finds in it: many values sooner than one after the other."""
        return getter(self._items)

    @staticmethod
    def picked(maps: Iterable[Mapping[K, V_co]], getter: Callable[[Mapping[K, V_co]], T]) -> list[T]:
        """The same of many maps."""
        return [getter(each._items if isinstance(each, FrozenMap) else each) for each in maps]

    # those of any mapping ask for its values key by key
    def items(self) -> ItemsView[K, V_co]:
        return self._items.items()

    def keys(self) -> KeysView[K]:
        return self._items.keys()

    def values(self) -> ValuesView[V_co]:
        return self._items.values()

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __or__(self, changed: Mapping[K, Any]) -> FrozenMap[K, Any]:
        """A map with some values changed, or more of them."""
        made: FrozenMap[K, Any] = FrozenMap.__new__(FrozenMap)
        made._items = {**self._items, **changed}
        return made

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)
