"""Makes data/ again: seeded rows, which Feast itself applies and materializes.

Run it with Feast 0.67 (`scripts/test` keeps a venv that has it). The rows are the same each time;
Feast stamps its registry with the time and an id, so that file differs. It also notes there which
local file is the online store, for `feast teardown`; that is taken out, for it names this machine's
folders and nothing that serves reads it.
"""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from feast.protos.feast.core.Registry_pb2 import Registry

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
USERS = 2_000


def moments(random, day, days):
    """Moments of whole seconds within `days` before `day`."""
    back = pd.to_timedelta(random.integers(0, days * 86_400, USERS), unit="s")
    return pd.Timestamp(day, tz="UTC") - back


def profile(random, user_id):
    def rate():
        return random.beta(2, 12, USERS).astype(np.float32)

    return pd.DataFrame(
        {
            "user_id": user_id,
            "at": moments(random, "2026-11-20", 10),
            "age": random.integers(18, 80, USERS).astype(np.int32),
            "country": random.choice(["DE", "FR", "JP", "BR", "US"], USERS),
            "language": random.choice(["de", "fr", "ja", "pt", "en"], USERS),
            "device": random.choice(["phone", "tablet", "desktop"], USERS),
            "plan": random.choice(["free", "plus", "pro"], USERS, p=[0.7, 0.2, 0.1]),
            "signed_up": moments(random, "2026-10-01", 900),
            "last_order": moments(random, "2026-11-20", 60),
            "orders": random.poisson(6, USERS),
            "returns": random.poisson(1, USERS),
            "sessions": random.poisson(40, USERS),
            "spent_cents": random.integers(0, 500_000, USERS),
            "basket": random.gamma(2, 20, USERS).round(2),
            "rating": random.uniform(1, 5, USERS).round(1),
            "click_rate": rate(),
            "buy_rate": rate(),
            "churn_risk": rate(),
            "discount": rate(),
            "email_opt_in": random.random(USERS) < 0.4,
            "push_opt_in": random.random(USERS) < 0.6,
            "verified": random.random(USERS) < 0.9,
            "embedding": list(random.normal(0, 1, (USERS, 64)).astype(np.float32)),
        }
    )


def activity(random, user_id):
    return pd.DataFrame(
        {
            "user_id": user_id,
            "at": moments(random, "2026-11-20", 2),
            "clicks": random.poisson(9, USERS),
            "dwell": random.gamma(2, 15, USERS).astype(np.float32),
            "last_item": [f"item-{n}" for n in random.integers(0, 5_000, USERS)],
        }
    )


def feast(*arguments):
    command = Path(sys.executable).with_name("feast")
    subprocess.run([command, "-c", HERE, *arguments], check=True)


def forget_infra(file):
    registry = Registry.FromString(file.read_bytes())
    registry.ClearField("infra")
    file.write_bytes(registry.SerializeToString(deterministic=True))


def main():
    DATA.mkdir(exist_ok=True)
    for old in ("registry.db", "online.db"):
        (DATA / old).unlink(missing_ok=True)
    random = np.random.default_rng(20261120)
    user_id = np.arange(1, USERS + 1, dtype=np.int64)
    profile(random, user_id).to_parquet(DATA / "user_profile.parquet")
    activity(random, user_id).to_parquet(DATA / "user_activity.parquet")
    feast("apply")
    feast("materialize", "2026-11-01T00:00:00", "2026-11-21T00:00:00")
    forget_infra(DATA / "registry.db")
    with sqlite3.connect(DATA / "online.db") as online:
        online.execute("PRAGMA journal_mode = DELETE")
        online.commit()
        online.execute("VACUUM")


if __name__ == "__main__":
    main()
