"""Programs written for aiodocker, and not for anything else. See `test_compatibility.py`.

Each takes an image and gives what it saw. They run twice: as they stand, and with `aiodocker` in the
import lines replaced. So they use aiodocker's interface only, and no event loop's.
"""

# aiodocker's types are not all there, and what a program has seen is compared as a whole.
# mypy: ignore-errors

import io
import json
import tarfile

import aiodocker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.utils import clean_filters

LABELS = {"vaka.test": "aiodocker-programs"}


def config(image, command, **more):
    return {
        "Image": image,
        "Cmd": ["sh", "-c", command],
        "HostConfig": {"NetworkMode": "none"},
        "Labels": LABELS,
        **more,
    }


async def a_container_from_birth_to_death(image):
    docker = aiodocker.Docker()
    name = "vaka-test-aiodocker-life"
    try:
        container = await docker.containers.create_or_replace(name, config(image, "echo hi"))
        created = (container.id == container["id"], "id" in container, "State" in container)
        started = await container.start()
        ended = await container.wait()
        shown = await container.show()
        found = await docker.containers.list(all=True, filters={"name": [name]})
        same = await docker.containers.get(name)
        bare = docker.containers.container(container.id)
        logs = await container.log(stdout=True, stderr=True)
        again = await docker.containers.create_or_replace(name, config(image, "echo ho"))
        renamed = await again.rename(name + "-2")
        ports = await again.port(80)
        deleted = await again.delete(force=True, v=True)
        return {
            "created": created,
            "started": started,
            "ended": ended,
            "shown": shown,
            "found": found,
            "found first": found[0]._container,
            "same": [same, same["Name"], same.id == container.id],
            "bare": [isinstance(bare, DockerContainer), bare.id],
            "logs": logs,
            "replaced": again.id != container.id,
            "renamed": renamed,
            "ports": ports,
            "deleted": deleted,
        }
    finally:
        await docker.close()


async def one_that_runs(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        container = await docker.containers.run(
            config(image, "trap exit TERM; while :; do sleep 1; done")
        )
        try:
            seen["top"] = sorted(await container.top())
            seen["pause"] = await container.pause()
            seen["unpause"] = await container.unpause()
            stats = await container.stats(stream=False)
            seen["stats"] = [type(stats).__name__, len(stats), sorted(stats[0])]
            async for item in container.stats():
                seen["streamed stats"] = sorted(item)
                break
            seen["restart"] = await container.restart(t=0)
            seen["kill"] = await container.kill(signal="USR1")
            seen["stop"] = await container.stop(t=0)
            seen["stop again"] = await container.stop()
            seen["wait"] = await container.wait(condition="not-running")
            image_id = await container.commit(
                repository="vaka-test-commit", tag="1", message="hello"
            )
            seen["commit"] = image_id
            seen["deleted image"] = await docker.images.delete(image_id["Id"])
        finally:
            await container.delete(force=True)
    return seen


async def errors(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        for name, call in {
            "no such container": lambda: docker.containers.get("vaka-test-nobody"),
            "no such image": lambda: docker.images.inspect("vaka-test-nothing:1"),
            "no such network": lambda: docker.networks.get("vaka-test-nowhere"),
            "no such volume": lambda: docker.volumes.get("vaka-test-nowhere"),
            "bad config": lambda: docker.containers.create({"Image": image, "Cmd": 5}),
            "pull": lambda: docker.images.pull("127.0.0.1:1/nothing:1"),
            "cannot run": lambda: docker.containers.run(
                config(image, "", Cmd=["/no/such/program"])
            ),
        }.items():
            try:
                await call()
            except DockerError as error:
                seen[name] = [
                    error.status,
                    error.message,
                    str(error).startswith(f"[{error.status}]"),
                ]
                if isinstance(error, aiodocker.DockerContainerError):
                    seen["container id"] = len(error.container_id)
                    await docker.containers.container(error.container_id).delete(force=True)
        container = await docker.containers.create(config(image, "true"), name="vaka-test-errors")
        try:
            try:
                await docker.containers.create(config(image, "true"), name="vaka-test-errors")
            except DockerError as error:
                seen["taken"] = error.status
            try:
                await container.kill()
            except DockerError as error:
                seen["not running"] = error.status
            try:
                container.log()
            except TypeError as error:
                seen["no stream"] = str(error)
        finally:
            await container.delete()
        try:
            await docker.images.pull("busybox", auth={"username": "u", "password": "p"})
        except ValueError as error:
            seen["no registry"] = str(error)[:65]
        try:
            await docker.images.build()
        except ValueError as error:
            seen["nothing to build"] = str(error)
    try:
        aiodocker.Docker(api_version="1.41.2")
    except ValueError as error:
        seen["api version"] = str(error)[:26]
    return seen


async def output(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        command = "echo one; sleep 0.2; echo two >&2; sleep 0.2; printf 'three: \\xc3\\xa9\\n'"
        for tty in (False, True):
            container = await docker.containers.run(config(image, command, Tty=tty))
            try:
                followed = container.log(stdout=True, stderr=True, follow=True)
                seen["followed", tty] = "".join([piece async for piece in followed])
                seen["list", tty] = "".join(await container.log(stdout=True, stderr=True))
                seen["type", tty] = {type(piece) for piece in await container.log(stdout=True)}
                seen["only", tty] = "".join(await container.log(stderr=True))
                seen["tail", tty] = "".join(await container.log(stdout=True, tail=1, follow=False))
                stamped = await container.log(stdout=True, stderr=True, timestamps=True)
                seen["stamped", tty] = "".join(stamped).count("T")
            finally:
                await container.delete(force=True)
    return seen


async def attached(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        container = await docker.containers.create(
            config(image, "read x; echo got $x; echo oops >&2", OpenStdin=True, StdinOnce=True)
        )
        try:
            stream = container.attach(stdin=True, stdout=True, stderr=True)
            async with stream:
                await container.start()
                seen["written"] = await stream.write_in(b"hello\n")
                messages = []
                while (message := await stream.read_out()) is not None:
                    messages.append(message)
                seen["messages"] = sorted(messages)
                seen["fields"] = [type(messages[0].stream), type(messages[0].data)]
            seen["closed again"] = await stream.close()
            await container.wait()
            async with container.attach(stdout=True, stderr=True, logs=True) as stream:
                seen["logs"] = sorted([await stream.read_out(), await stream.read_out()])
        finally:
            await container.delete(force=True)
        container = await docker.containers.create(config(image, "echo tty", Tty=True))
        try:
            async with container.attach(stdout=True) as stream:
                await container.start()
                data = b""
                while (message := await stream.read_out()) is not None:
                    data += message.data
                seen["tty"] = data
        finally:
            await container.delete(force=True)
    return seen


async def execs(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        container = await docker.containers.run(config(image, "sleep 60"))
        try:
            execute = await container.exec("sh -c 'echo out; echo err >&2; exit 7'")
            seen["created"] = [type(execute).__name__, len(execute.id)]
            messages = []
            async with execute.start(detach=False) as stream:
                while (message := await stream.read_out()) is not None:
                    messages.append(message)
            seen["messages"] = sorted(messages)
            seen["inspected"] = await execute.inspect()
            execute = await container.exec(
                ["sh", "-c", "read x; echo $x $NAME $PWD; id -u"],
                stdin=True,
                user="1000",
                environment={"NAME": "value"},
                workdir="/tmp",
            )
            stream = execute.start()
            await stream.write_in(b"typed\n")
            data = b""
            while (message := await stream.read_out()) is not None:
                data += message.data
            await stream.close()
            seen["input"] = data
            execute = await container.exec(["tty"], tty=True)
            async with execute.start() as stream:
                seen["tty"] = await stream.read_out()
            execute = await container.exec(["true"])
            seen["detached"] = await execute.start(detach=True)
            same = docker.containers.exec(execute.id)
            seen["same"] = (await same.inspect())["ID"] == execute.id
        finally:
            await container.delete(force=True)
    return seen


def tar_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data.seek(0)
    return data


async def archives(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        container = await docker.containers.create(config(image, "true"))
        try:
            put = await container.put_archive("/tmp", tar_of({"a.txt": b"content"}).getvalue())
            seen["put"] = put
            archive = await container.get_archive("/tmp/a.txt")
            seen["type"] = [type(archive).__name__, archive.getnames()]
            seen["content"] = archive.extractfile("a.txt").read()
            try:
                await container.get_archive("/no/such/path")
            except DockerError as error:
                seen["missing"] = error.status
        finally:
            await container.delete(force=True)
    return seen


async def images(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        seen["inspected"] = await docker.images.inspect(image)
        assert seen["inspected"]["RepoTags"]
        seen["history"] = await docker.images.history(image)
        seen["tagged"] = await docker.images.tag(image, "vaka-test-tag", tag="1")
        listed = await docker.images.list(filters={"reference": ["vaka-test-tag"]})
        seen["listed"] = [type(listed).__name__, sorted(listed[0])]
        context = tar_of({"Dockerfile": f"FROM {image}\nENV a=b\nARG c\nLABEL c=$c\n".encode()})
        built = await docker.images.build(
            fileobj=context,
            encoding="identity",
            tag="vaka-test-built:1",
            buildargs={"c": "d"},
            labels=LABELS,
        )
        seen["built"] = [type(built).__name__, {tuple(item) for item in built}]
        seen["labels"] = (await docker.images.inspect("vaka-test-built:1"))["Config"]["Labels"]
        bad = tar_of({"Dockerfile": f"FROM {image}\nCOPY nothing /\n".encode()})
        streamed = []
        try:
            async for item in docker.images.build(fileobj=bad, encoding="identity", stream=True):
                streamed.append(item)  # noqa: PERF401 - an async for, as programs have it
        except aiodocker.DockerStreamError as error:
            seen["failed build"] = [error.status, type(error.error_detail).__name__]
        async with docker.images.export_image(name="vaka-test-built:1") as exported:
            content = await exported.read()
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            seen["exported"] = archive.getnames()[-1]
        deleted = await docker.images.delete("vaka-test-built:1")
        seen["deleted"] = sorted(deleted[0])
        loaded = await docker.images.import_image(content)
        seen["loaded"] = loaded
        async for item in docker.images.import_image(data=content, stream=True):
            seen["streamed"] = item
        await docker.images.delete("vaka-test-built:1", force=True)
        seen["untagged"] = await docker.images.delete("vaka-test-tag:1")
    return seen


async def networks_and_volumes(image):
    seen = {}
    async with aiodocker.Docker() as docker:
        network = await docker.networks.create(
            {"Name": "vaka-test-network", "Internal": True, "Labels": LABELS}
        )
        try:
            seen["network"] = await network.show()
            found = await docker.networks.list(filters={"name": "vaka-test-network"})
            seen["found"] = [type(found).__name__, found[0]["Id"] == network.id]
            same = await docker.networks.get("vaka-test-network")
            seen["same"] = [type(same).__name__, same.id == network.id]
            container = await docker.containers.create(config(image, "true", HostConfig={}))
            try:
                seen["connect"] = await network.connect({"Container": container.id})
                seen["disconnect"] = await network.disconnect({"Container": container.id})
            finally:
                await container.delete()
        finally:
            seen["deleted"] = await network.delete()
        volume = await docker.volumes.create({"Name": "vaka-test-volume", "Labels": LABELS})
        try:
            seen["volume"] = await volume.show()
            seen["volumes"] = sorted(
                await docker.volumes.list(filters={"name": "vaka-test-volume"})
            )
            seen["same volume"] = (await docker.volumes.get("vaka-test-volume")).name
        finally:
            seen["deleted volume"] = await volume.delete()
        nothing = {"label": ["vaka.test=there-is-none"]}
        seen["pruned"] = [
            await docker.containers.prune(filters=nothing),
            await docker.networks.prune(filters=nothing),
            await docker.volumes.prune(filters=nothing),
            await docker.images.prune(filters=nothing),
        ]
    return seen


async def the_daemon(image):
    async with aiodocker.Docker(api_version="v1.41") as docker:
        return {
            "version": await docker.version(),
            "info": sorted(await docker.system.info()),
            "api": docker.api_version,
            "filters": clean_filters({"label": "a", "status": ["x"]}),
        }


async def events(image):
    async with aiodocker.Docker() as docker:
        await docker.version()
        subscriber = docker.events.subscribe(filters=json.dumps({"label": ["vaka.test=events"]}))
        labels = {"vaka.test": "events"}
        container = await docker.containers.run(config(image, "true", Labels=labels))
        await container.wait()
        await container.delete()
        seen = []
        while not seen or seen[-1]["Action"] != "destroy":
            seen.append(await subscriber.get())
        await docker.events.stop()
        end = await subscriber.get()
        return {
            "actions": [event["Action"] for event in seen],
            "first": seen[0],
            "time": type(seen[0]["time"]).__name__,
            "end": end,
        }
