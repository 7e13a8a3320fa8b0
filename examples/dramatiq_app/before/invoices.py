"""A shop's background work, as one finds it: actors with retries and a time limit, and a pipeline."""

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url="redis://localhost:6379/0"))


@dramatiq.actor(queue_name="invoices", max_retries=3, min_backoff=1_000, time_limit=60_000)
def render(month, numbers):
    pages = 0
    for number in numbers:
        time.sleep(0.1)  # the work
        pages += 1 + number % 2
    return pages


@dramatiq.actor(queue_name="invoices", max_retries=8)
def mail(pages, address):
    print(f"{pages} pages for {address}")
