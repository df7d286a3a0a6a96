"""Delay statistics per carrier and month, a few months a run.

The state says which months are done, so each run goes on where the one before it ended. The last
month of that run is done again: it may not have been complete then, and the output's primary key
makes the repetition harmless.
"""

import csv
import json
import logging
import sys
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from keboola.component import ComponentBase, UserException

log = logging.getLogger(__name__)

KEY = ["origin", "carrier", "month"]
COLUMNS = [
    *KEY,
    "carrier_name",
    "flights",
    "late_flights",
    "mean_dep_delay",
    "mean_arr_delay",
    "max_arr_delay",
]


@dataclass
class Delays:
    """What is known of one carrier in one month; minutes."""

    flights: int = 0
    late: int = 0
    departure: int = 0
    arrival: int = 0
    worst: int | None = None

    def add(self, departure: int, arrival: int, late_minutes: int) -> None:
        self.flights += 1
        self.late += arrival > late_minutes
        self.departure += departure
        self.arrival += arrival
        self.worst = arrival if self.worst is None else max(self.worst, arrival)

    def row(self) -> list[object]:
        """The figures in the order of COLUMNS, means with two decimals."""
        means = [Decimal(total) / self.flights for total in (self.departure, self.arrival)]
        rounded = [mean.quantize(Decimal("0.01")) + 0 for mean in means]  # + 0: no "-0.00"
        return [self.flights, self.late, *rounded, self.worst]


class Component(ComponentBase):
    def run(self) -> None:
        parameters = self.configuration.parameters
        late_minutes = whole_number(parameters, "late_minutes", 15)
        months = whole_number(parameters, "months_per_run", 12)

        state = self.get_state_file()
        run, done = state.get("runs", 0) + 1, state.get("last_month")
        if done is None:
            log.info("This is run %d; no month is done yet.", run)
        else:
            log.info("This is run %d; the months up to %d are done.", run, done)
        first = done or 1
        last = min(12, (done or 0) + months)

        names = self.carrier_names()
        found = self.read_flights(first, last, late_minutes)
        self.write_delays(found, names)
        self.write_state_file({"runs": run, "last_month": last})
        log.info("Done: months %d to %d, %d rows.", first, last, len(found))

    def carrier_names(self) -> dict[str, str]:
        files = self.get_input_files_definitions(tags=["carriers"])
        if len(files) != 1:
            raise UserException(
                f"One input file with the tag carriers is needed, not {len(files)}."
            )
        with Path(files[0].full_path).open(encoding="utf-8") as file:
            return dict(json.load(file))

    def read_flights(
        self, first: int, last: int, late_minutes: int
    ) -> dict[tuple[str, str, int], Delays]:
        table = self.get_input_table_definition_by_name("flights.csv")
        found: dict[tuple[str, str, int], Delays] = defaultdict(Delays)
        with Path(table.full_path).open(encoding="utf-8", newline="") as file:
            for number, flight in enumerate(csv.DictReader(file, dialect="kbc"), start=1):
                month = int(flight["month"])
                if first <= month <= last:
                    found[flight["origin"], flight["carrier"], month].add(
                        int(flight["dep_delay"]), int(flight["arr_delay"]), late_minutes
                    )
                if number % 25_000 == 0:
                    log.info("Read %d flights.", number)
        return found

    def write_delays(
        self, found: dict[tuple[str, str, int], Delays], names: dict[str, str]
    ) -> None:
        table = self.create_out_table_definition(
            "delays.csv", schema=COLUMNS, primary_key=KEY, incremental=True, has_header=False
        )
        with Path(table.full_path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, dialect="kbc")
            for (origin, carrier, month), delays in sorted(found.items()):
                if carrier not in names:
                    log.warning("Carrier %s has no name.", carrier)
                name = names.get(carrier, "")
                writer.writerow([origin, carrier, month, name, *delays.row()])
        table.table_metadata.add_table_description("Delays of flights, per carrier and month")
        self.write_manifest(table)


def whole_number(parameters: dict[str, object], name: str, default: int) -> int:
    value = parameters.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserException(
            f'Parameter "{name}" must be a whole number of at least 1, not {value!r}.'
        )
    return value


if __name__ == "__main__":
    try:
        Component().execute_action()
    except UserException as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Exception:
        log.exception("The component failed.")
        sys.exit(2)
