"""Print the rows of sales.csv: one quarter of an invented shop, the same on every run.

python make_sales.py > sales.csv
"""

import csv
import datetime
import random
import sys
from collections.abc import Iterator

REGIONS = {"North": 1.0, "South": 0.7, "East": 0.55, "West": 0.85}
PRODUCTS = {
    "Desk lamp": (39.90, 9),
    "Office chair": (249.00, 3),
    "Notebook": (4.50, 60),
    "Monitor arm": (89.00, 4),
}
CHANNELS = {"Web": 6, "Store": 3, "Partner": 1}
FIRST, DAYS = datetime.date(2026, 7, 1), 92


def rows(seed: int = 2026) -> Iterator[tuple[str | int, ...]]:
    """Yield about four sales a day: quieter on Sundays, busier from September on."""
    chance = random.Random(seed)
    for day in range(DAYS):
        date = FIRST + datetime.timedelta(days=day)
        season = (0.4 if date.weekday() == 6 else 1.0) * (1.25 if date.month == 9 else 1.0)
        for region, size in REGIONS.items():
            product, (price, usual) = chance.choice(list(PRODUCTS.items()))
            units = max(1, round(usual * size * season * chance.uniform(0.5, 1.6)))
            channel = chance.choices(list(CHANNELS), list(CHANNELS.values()))[0]
            discount = 0.9 if channel == "Partner" else 1.0
            yield (
                date.isoformat(),
                region,
                product,
                channel,
                units,
                f"{price:.2f}",
                f"{units * price * discount:.2f}",
            )


writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(["date", "region", "product", "channel", "units", "unit_price", "revenue"])
writer.writerows(rows())
