"""The smallest component: says hello, and how often it has done so."""

from keboola.component import CommonInterface


def main() -> None:
    interface = CommonInterface()
    name = interface.configuration.parameters.get("name", "world")
    runs = interface.get_state_file().get("runs", 0) + 1
    print(f"Hello, {name}! This is run {runs}.", flush=True)
    interface.write_state_file({"runs": runs})


if __name__ == "__main__":
    main()
