"""Plain `async def RpcName(self, request)` methods as a grpclib service."""

import collections
import contextvars
import inspect
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_grpc

TASK_HEADER = "x-fake-task-id"
CALLING_TASK: contextvars.ContextVar[str] = contextvars.ContextVar("id of the container that calls")


class Rpc:
    """A call of an RPC that the service has no method for is counted and answered with UNIMPLEMENTED."""

    def __init__(self, service: object) -> None:
        self.service = service
        self.unimplemented: collections.Counter[str] = collections.Counter()

    def __mapping__(self) -> dict:
        return api_grpc.ModalClientBase.__mapping__(self)  # names every RPC of the protocol as an attribute of self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.service, name, None)

        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            if method is None:
                self.unimplemented[name] += 1
                raise GRPCError(Status.UNIMPLEMENTED, f"the stand-in does not implement {name}")
            CALLING_TASK.set(stream.metadata.get(TASK_HEADER, ""))
            if inspect.isasyncgenfunction(method):
                async for message in method(request):
                    await stream.send_message(message)
            else:
                await stream.send_message(await method(request) or Empty())

        return handle
