"""The RPCs about calls: inputs on their way to containers, outputs on their way back."""

import time

from modal_proto import api_pb2

from tests.fakemodal.rpc import CALLING_TASK
from tests.fakemodal.service import Service
from tests.fakemodal.state import SUCCESS, Call, Input, input_id_of, wait_for_change

POLL = 50.0  # seconds after which a container's question for inputs is answered with nothing
IDLE = 2.0  # seconds after which a container that has served is stopped


class Calls(Service):
    # ------------------------------------------------------------ the caller's side
    async def FunctionMap(self, request):
        retried_here = request.function_call_invocation_type != api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC
        call = Call(self.new_id("fc"), request.function_id, retried_here)
        self.calls[call.id] = call
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=[await self.put(call, item) for item in request.pipelined_inputs],
            retry_policy=self.functions[request.function_id].retry_policy,
            sync_client_retries_enabled=True,
            max_inputs_outstanding=1000,
        )

    async def FunctionPutInputs(self, request):
        call = self.calls[request.function_call_id]
        return api_pb2.FunctionPutInputsResponse(inputs=[await self.put(call, item) for item in request.inputs])

    async def put(self, call: Call, item: api_pb2.FunctionPutInputsItem) -> api_pb2.FunctionPutInputsResponseItem:
        new = Input(self.new_id("in"), item.idx, item.input, call)
        call.inputs[new.id] = self.inputs[new.id] = new
        self.queues[call.function_id].append(new)
        await self.scale(call.function_id)
        return api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=new.id, input_jwt=new.token)

    async def FunctionFinishInputs(self, request):
        return None

    async def FunctionCallCancel(self, request):
        return None

    async def FunctionRetryInputs(self, request):
        tokens = []
        for entry in request.inputs:
            item = self.inputs[input_id_of(entry.input_jwt)]
            function_id = item.call.function_id
            async with item.call.changed:
                item.call.outputs = [output for output in item.call.outputs if output.input_id != item.id]
            item.retries, item.done = entry.retry_count or item.retries + 1, False
            if function_id in self.broken:
                await self.finish(item, self.broken[function_id], api_pb2.DATA_FORMAT_PICKLE)
            else:
                self.queues[function_id].append(item)
                await self.scale(function_id)
            tokens.append(item.token)
        return api_pb2.FunctionRetryInputsResponse(input_jwts=tokens)

    async def FunctionGetOutputs(self, request):
        call, deadline = self.calls[request.function_call_id], time.time() + request.timeout
        wanted = {input_id_of(token) for token in request.input_jwts}
        while True:
            if request.HasField("start_idx"):
                indices = range(request.start_idx, request.end_idx + 1)
                outputs = [o for o in call.outputs if o.idx in indices and (not wanted or o.input_id in wanted)]
                last = ""
            else:
                seen = int((request.last_entry_id or "0-0").split("-")[0])
                outputs = [o for o in call.outputs if int(o.output_created_at * 1e6) > seen]
                last = f"{max([int(o.output_created_at * 1e6) for o in outputs] + [seen])}-0"
            if outputs or time.time() >= deadline:
                unfinished = sum(not item.done for item in call.inputs.values())
                return api_pb2.FunctionGetOutputsResponse(
                    outputs=outputs, last_entry_id=last, num_unfinished_inputs=unfinished
                )
            await wait_for_change(call.changed, min(0.5, deadline - time.time()))

    # ------------------------------------------------------------ the container's side
    async def ContainerHello(self, request):
        return None

    async def ContainerHeartbeat(self, request):
        return api_pb2.ContainerHeartbeatResponse()

    async def TaskClusterHello(self, request):
        """All containers of a cluster are on this machine."""
        container = self.containers[request.task_id]
        size = self.functions[container.function_id]._experimental_group_size
        return api_pb2.TaskClusterHelloResponse(
            cluster_id=f"cu-{container.function_id}",
            cluster_rank=container.rank,
            container_ips=["::1"] * size,
            container_ipv4_ips=["127.0.0.1"] * size,
        )

    async def TaskResult(self, request):
        """The container could not start the function, or could not end well."""
        self.containers[CALLING_TASK.get()].startup_failure = request.result

    async def FunctionGetInputs(self, request):
        container = self.containers[CALLING_TASK.get()]
        queue, asked = self.queues[container.function_id], time.monotonic()
        while time.monotonic() < asked + POLL:
            idle = container.served and not queue and time.monotonic() > asked + IDLE
            if idle or container.stopping or container.preempted:
                container.stopping = container.stopping or bool(idle)
                return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
            cluster = self.functions[container.function_id]._experimental_group_size
            if container.served and cluster:
                container.stopping = True
            elif container.busy is not None or (queue and not cluster):
                item = container.busy = container.busy or queue.popleft()
                container.served += 1
                self.start(self.disturb_call(container, item))
                entry = api_pb2.FunctionGetInputsItem(
                    input_id=item.id,
                    input=item.payload,
                    function_call_id=item.call.id,
                    retry_count=item.retries,
                    function_map_idx=item.index,
                    function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC,
                )
                return api_pb2.FunctionGetInputsResponse(inputs=[entry])
            await wait_for_change(self.queued, 0.25)
        return api_pb2.FunctionGetInputsResponse()

    async def FunctionPutOutputs(self, request):
        container = self.containers[CALLING_TASK.get()]
        for output in request.outputs:
            if container.preempted and output.result.status != SUCCESS:
                continue  # it was interrupted: `watch` puts the input back into the queue
            container.busy = None
            if container.rank:
                continue  # only the first one's output counts
            await self.finish(self.inputs[output.input_id], output.result, output.data_format, output.input_started_at)
