"""A client of the Docker Engine API for Trio and asyncio, call-compatible with aiodocker.

```python
async with Docker() as docker:
    container = await docker.containers.create({"Image": "busybox", "Cmd": ["echo", "hello"]})
    async with container.output(logs=False) as output, container.waiting() as exit:
        await container.start()
        async for message in output:
            print(message.stream, message.data)
        print(await exit.result())
    await container.delete()
```

Code that was written for aiodocker 0.27 runs on either loop when its import is changed: `Docker` has
`containers`, `images`, `networks`, `volumes`, `events` and `system`; a container has its `log`, `attach`
and `exec`; modules have the same names. Beyond it there are `Docker.ping`, `DockerSystem.df`,
`DockerImages.distribution`, and of a container `output`, `waiting` and `get_archive_stream`; uploads may
be async iterables; errors have types.

What is not here: Swarm (services, configs, secrets, tasks, nodes) and plugins, which Vaka does not use;
`DockerContainer.websocket`, because `attach` does the same without another protocol; and addresses of
`ssh://` and `npipe://`.

It knows the Docker Engine and nothing of jobs. API versions 1.41 and newer are spoken.
"""

from vaka.docker.docker import Docker
from vaka.docker.exceptions import (
    DockerConflict,
    DockerConnectionLost,
    DockerContainerError,
    DockerContextError,
    DockerContextInvalidError,
    DockerContextTLSError,
    DockerError,
    DockerNotFound,
    DockerServerError,
    DockerStreamError,
    DockerStreamTruncated,
    DockerUnreachable,
)
from vaka.docker.stream import Message

__all__ = [
    "Docker",
    "DockerConflict",
    "DockerConnectionLost",
    "DockerContainerError",
    "DockerContextError",
    "DockerContextInvalidError",
    "DockerContextTLSError",
    "DockerError",
    "DockerNotFound",
    "DockerServerError",
    "DockerStreamError",
    "DockerStreamTruncated",
    "DockerUnreachable",
    "Message",
]
