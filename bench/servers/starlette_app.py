# The Starlette server of the benchmark: one background task per response, asynchronous or synchronous.
# uvicorn runs it in one process with uvloop and httptools, its fastest configuration.

from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.responses import JSONResponse
from starlette.routing import Route

runs = 0


async def async_task():
    global runs
    runs += 1


def sync_task():
    global runs
    runs += 1


def answer_with(task):
    async def answer(request):
        tasks = BackgroundTasks()
        tasks.add_task(task)
        return JSONResponse({"message": "Hello"}, background=tasks)

    return answer


app = Starlette(routes=[Route("/async", answer_with(async_task)), Route("/sync", answer_with(sync_task))])
