"""A shop's background work, as one finds it: actors with retries and a time limit, and a pipeline."""

import time

import dramatiq

from tidings_tasks import current_job
from tidings_tasks.queue.broker import TidingsBroker

dramatiq.set_broker(TidingsBroker())


@dramatiq.actor(queue_name="invoices", max_retries=3, min_backoff=1_000, time_limit=60_000)
def render(month, numbers):
    pages = 0
    for number in current_job().track(numbers, message=f"invoices of {month}"):
        time.sleep(0.1)  # the work
        pages += 1 + number % 2
    return pages


@dramatiq.actor(queue_name="invoices", max_retries=8)
def mail(pages, address):
    print(f"{pages} pages for {address}")
