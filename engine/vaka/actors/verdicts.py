"""What a container's end means (runner.md section 4.8)."""

from __future__ import annotations

from vaka.actors.container import Ending
from vaka.actors.limits import ResourceLimits
from vaka.actors.output import OutputReader, shorten
from vaka.actors.stages import Stage
from vaka.errors import (
    ComponentCrashed,
    ContainerFailed,
    DeadlineExceeded,
    OutOfMemory,
    RuntimeUnavailable,
)
from vaka.masking import Masker

NO_MESSAGE = "No error message."
STDERR_LINES = 50
"""Lines of standard error kept as evidence of a failure."""
KILLED = 137
ENDED_BY_DAEMON = (KILLED, 143, 255)
"""Exit codes of what a daemon that came back has ended, or has found ended."""


def has_succeeded(ending: Ending) -> bool:
    """Whether a container did its work: nobody ended it, and it says so itself."""
    return ending.exit.exit_code == 0 and not (
        ending.exit.oom_killed or ending.timed_out or ending.stopped
    )


def raise_for_ending(
    stage: Stage,
    limits: ResourceLimits,
    name: str,
    ending: Ending,
    reader: OutputReader,
    masker: Masker,
) -> None:
    """Do nothing for a container that ended well.

    Raises:
        OutOfMemory: also when the component hid it behind exit code 0.
        DeadlineExceeded: it ran longer than it may and was killed.
        RuntimeUnavailable: the runtime went away, and the container with it.
        ContainerFailed: exit code 1, or any other when the component wants no application errors.
        ComponentCrashed: any other exit code.
    """
    exit_, definition, image = ending.exit, stage.definition, stage.reference
    tail = reader.excerpts["stderr"].tail(STDERR_LINES, masker)
    if exit_.oom_killed:
        raise OutOfMemory(
            f"Component out of memory (exceeded {limits.memory})",
            limit=limits.memory_bytes,
            peak=exit_.memory_peak_bytes,
            stderr_tail=tail,
        )
    if ending.timed_out:
        raise DeadlineExceeded(
            f"Running {image} container exceeded the timeout of {stage.timeout:g} seconds.",
            seconds=stage.timeout,
            setting=stage.timeout_setting,
            stderr_tail=tail,
        )
    code = exit_.exit_code
    if code == 0:
        return
    if exit_.runtime_was_away and code in ENDED_BY_DAEMON:
        raise RuntimeUnavailable(
            f"Container {name} ended with exit code {code} while the container runtime was away: a "
            "daemon that was killed ends what runs when it is back. See its own log, and run the job "
            "again.",
            exit_code=code,
        )
    message = error_message(reader, masker)
    event = exit_.event
    if code == 1:
        raise ContainerFailed(message, exit_code=code, stderr_tail=tail)
    if code == KILLED and stage.kind != "action":
        # neither the kernel for memory nor we for time: somebody killed it from outside
        raise ContainerFailed(
            "Component terminated. Possibly due to out of memory error",
            exit_code=code,
            stderr_tail=tail,
            daemon_event=event,
        )
    full = f"{image} container '{name}' failed: ({code}) {message}"
    if definition.logging.no_application_errors:
        raise ContainerFailed(full, exit_code=code, stderr_tail=tail, daemon_event=event)
    raise ComponentCrashed(full, exit_code=code, stderr_tail=tail, daemon_event=event)


def error_message(reader: OutputReader, masker: Masker) -> str:
    """What a failed container says of it: its standard error, else its output, else its last warning.

    Masked, and cut to the length of a message. Source: runner.md section 4.9.3.
    """
    for stream in ("stderr", "stdout"):
        text = reader.excerpts[stream].text(masker)
        if text:
            return text
    return shorten(reader.remark) or NO_MESSAGE
