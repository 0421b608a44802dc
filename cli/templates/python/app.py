from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        respond(response_out, 200, b"Hello!\n")


def respond(response_out: ResponseOutparam, status: int, content: bytes) -> None:
    headers = Fields.from_list([("content-type", b"text/plain; charset=utf-8")])
    response = OutgoingResponse(headers)
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    # The stream has to be closed before its body can be finished.
    with body.write() as stream:
        for start in range(0, len(content), 4096):  # WASI's limit for one write
            stream.blocking_write_and_flush(content[start : start + 4096])
    OutgoingBody.finish(body, None)
