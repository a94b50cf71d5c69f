"""A store beside a store: reads fall through to the one below, writes stay above. For plans, which leave no trace."""

from collections.abc import Iterable, Iterator

from tasks.store.backend import Backend, Entry


class OverlayBackend:
    """What was written here, and below it what was there."""

    def __init__(self, below: Backend, above: Backend) -> None:
        self.below = below
        self.above = above
        self.uri = below.uri
        self.written: set[str] = set()

    def get(self, key: str) -> bytes:
        return self._holder(key).get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._holder(key).get_range(key, start, length)

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        return self._holder(key).stream(key, size)

    def put(self, key: str, blocks: Iterable[bytes]) -> None:
        self.above.put(key, blocks)
        self.written.add(key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            return self.below.get(key) == data
        except FileNotFoundError:
            self.written.add(key)
            return self.above.put_if_absent(key, data)

    def keys(self, prefix: str) -> list[str]:
        return sorted({*self.below.keys(prefix), *self.above.keys(prefix)})

    def folders(self, prefix: str) -> list[str]:
        return sorted({*self.below.folders(prefix), *self.above.folders(prefix)})

    def entries(self, prefix: str) -> list[Entry]:
        found = {entry.key: entry for backend in (self.below, self.above) for entry in backend.entries(prefix)}
        return [found[key] for key in sorted(found)]

    def delete(self, key: str) -> None:
        self.above.delete(key)
        self.written.discard(key)

    def now(self) -> float:
        return self.above.now()

    def location(self, key: str) -> str:
        return self._holder(key).location(key)

    def _holder(self, key: str) -> Backend:
        return self.above if key in self.written else self.below
