# SPDX-License-Identifier: Apache-2.0
"""
The handlers under FastAPI and uvicorn: the model is in the process that answers, and batches there are none.

With a third argument, ``quiet``, there is no access log.
"""

import sys
from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI, Request, Response
from served import JSON, handler_of

case, port = sys.argv[1], int(sys.argv[2])
handler = handler_of(case)
app = FastAPI()

if case in JSON:

    @app.post("/predict")
    async def predict(body: Annotated[list[float], Body()]):
        return handler.handle([{"body": body}], None)[0]

else:

    @app.post("/predict")
    async def predict(request: Request):
        return Response(handler.handle([{"body": await request.body()}], None)[0])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port, access_log="quiet" not in sys.argv)
