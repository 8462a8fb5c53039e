"""Lets pyasic, an independent client library, identify and drive the emulated miners of standins.yaml.

Each line of output is one claim; the exit code is 0 only if all held. pyasic finds miners at their standard ports.
"""

import asyncio
import importlib.metadata
import sys
import time
import warnings

import pyasic

warnings.simplefilter("ignore")

PATIENCE_SECONDS = 30
failures = []


def claim(text, held, seen=""):
    print(f"{'ok    ' if held else 'FAILED'} {text} {seen}")
    if not held:
        failures.append(text)


async def watts_become(miner, low, high):
    """Polls the wall power until it is within the bounds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    watts = None
    while time.monotonic() < deadline:
        watts = await miner.get_wattage()
        if watts is not None and low <= watts <= high:
            return True, watts
        await asyncio.sleep(0.2)
    return False, watts


async def lower_power(miner, watts):
    """Steps down to a tuned step.

    For VNish, 0.79.0 reads every configuration as mode "normal" (the recorded answers themselves included), so its own
    set_power_limit never finds a preset: the request it would send is sent by hand.
    """
    if type(miner).__name__.startswith("VNish"):
        return "restart_required" in await miner.web.set_power_limit(watts)
    return await miner.set_power_limit(watts)


async def check(address, kind, model, top_watts, floor_watts, lower_watts):
    miner = await pyasic.get_miner(address)
    name = type(miner).__name__ if miner else None
    claim(f"{address} is identified as {kind}", name == kind, f"({name})")
    if miner is None:
        return
    claim(f"{kind}: model {model}", miner.model is not None and model in miner.model, f"({miner.model})")
    data = await miner.get_data()
    claim(f"{kind}: wall power near {top_watts} W", data.wattage and abs(data.wattage - top_watts) < 60, f"({data.wattage})")
    claim(f"{kind}: three hashboards", len(data.hashboards) == 3, f"({data.hashrate}, {data.temperature_avg} C)")
    claim(f"{kind}: firmware version", bool(data.fw_ver), f"({data.fw_ver})")
    claim(f"{kind}: pools", len(data.pools) >= 2, f"({len(data.pools)})")
    claim(f"{kind}: config is read", (await miner.get_config()) is not None)
    claim(f"{kind}: stop is accepted", await miner.stop_mining())
    held, watts = await watts_become(miner, 1, floor_watts)
    claim(f"{kind}: power falls to the floor", held, f"({watts} W)")
    claim(f"{kind}: resume is accepted", await miner.resume_mining())
    held, watts = await watts_become(miner, top_watts - 60, top_watts)
    claim(f"{kind}: power comes back", held, f"({watts} W)")
    claim(f"{kind}: lower power is accepted", await lower_power(miner, lower_watts))
    held, watts = await watts_become(miner, lower_watts - 60, lower_watts)
    claim(f"{kind}: power follows", held, f"({watts} W)")
    claim(f"{kind}: reboot is accepted", await miner.reboot())


async def main():
    print(f"pyasic {importlib.metadata.version('pyasic')}")
    await check("127.0.0.21", "LUXMinerS19kPro", "S19k Pro", 2794, 18, 1384)
    await check("127.0.0.24", "VNishS21Pro", "S21 Pro", 3520, 21, 2550)
    sys.exit(1 if failures else 0)


asyncio.run(main())
