"""What the flow of control says about slots: which live within a segment, and which may be read before they are written."""

from __future__ import annotations

from convgen.targets.cuda.interp.program import Branch, Jump, Segment, Switch, Wait, slots_in


def successors(segment: Segment) -> tuple[int, ...]:
    """The segments that may follow."""
    match segment.end:
        case Jump(target) | Wait(_, target):
            return (target,)
        case Branch(_, taken, otherwise):
            return (taken, otherwise)
        case Switch(_, targets):
            return targets
        case _:
            return ()


def _end_reads(segment: Segment) -> tuple[int, ...]:
    match segment.end:
        case Branch(guard):
            return (guard.index,)
        case Switch(index):
            return tuple(slot.index for slot in slots_in(index))
        case Wait(op):
            return tuple(slot.index for slot in op.reads)
        case _:
            return ()


def temporary_slots(segments: tuple[Segment, ...]) -> frozenset[int]:
    """Slots that one segment alone mentions, and writes for every lane before it reads them."""
    homes: dict[int, int] = {}
    shared: set[int] = set()
    for number, segment in enumerate(segments):
        written: set[int] = set()
        for op in segment.ops:
            for slot in op.reads:
                if slot.index not in written:
                    shared.add(slot.index)
            for slot in op.writes:
                if homes.setdefault(slot.index, number) != number:
                    shared.add(slot.index)
                if op.guard is None:
                    written.add(slot.index)
                elif slot.index not in written:
                    shared.add(slot.index)
        for index in _end_reads(segment):
            # Terminators other than branches are reached through a branch, in a segment of their own.
            if index not in written:
                shared.add(index)
    return frozenset(homes) - shared


def doubtful_slots(segments: tuple[Segment, ...], given: frozenset[int]) -> frozenset[int]:
    """Slots that some path reads without having written them, and those that such a slot is moved to."""
    everything = -1
    entry = sum(1 << index for index in given)
    before = [everything] * len(segments)
    before[0] = entry
    gains = [
        sum(1 << index for index in {slot.index for op in segment.ops if op.guard is None for slot in op.writes})
        for segment in segments
    ]
    pending = [0]
    while pending:
        number = pending.pop()
        after = before[number] | gains[number]
        for following in successors(segments[number]):
            if before[following] == everything or before[following] & after != before[following]:
                before[following] = after if before[following] == everything else before[following] & after
                pending.append(following)
    doubtful: set[int] = set()
    for number, segment in enumerate(segments):
        if before[number] == everything:
            continue
        known = before[number]
        for op in segment.ops:
            doubtful.update(slot.index for slot in op.reads if not known >> slot.index & 1)
            if op.guard is None:
                for slot in op.writes:
                    known |= 1 << slot.index
        doubtful.update(index for index in _end_reads(segment) if not known >> index & 1)
    return _moved_to(segments, doubtful)


def _moved_to(segments: tuple[Segment, ...], doubtful: set[int]) -> frozenset[int]:
    moves = [op for segment in segments for op in segment.ops if op.opcode[0] == "mov"]
    grown = True
    while grown:
        grown = False
        for op in moves:
            if any(slot.index in doubtful for slot in op.reads):
                fresh = {slot.index for slot in op.writes} - doubtful
                doubtful |= fresh
                grown = grown or bool(fresh)
    return frozenset(doubtful)
