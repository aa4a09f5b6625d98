"""Takes charges that Stripe sent from a source's inbox and books them in PostgreSQL: each once, whenever it, the server or
the database is killed. Run as many as you like.

    pip install 'psycopg[binary]'
    psql "$DATABASE_URL" --file schema.sql
    DATABASE_URL=postgres://… EVENTHOSE_URL=http://127.0.0.1:8080 EVENTHOSE_API_KEY=… python worker.py sub_…
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

import psycopg

SUBSCRIPTION = f"{os.environ['EVENTHOSE_URL']}/v1/tenants/default/subscriptions/{sys.argv[1]}"
LEASE = "3s"  # how soon another worker takes over from one that has died


def call(verb, body):
    """Asks the server. One that is away or busy is an OSError, and so is a refusal."""
    headers = {"Authorization": "Bearer " + os.environ["EVENTHOSE_API_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(f"{SUBSCRIPTION}/{verb}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def once(db, event, work):
    """Does the work of an event and notes its id, both or neither."""
    with db.transaction():
        noted = db.execute("INSERT INTO done (source, event) VALUES (%s, %s) ON CONFLICT DO NOTHING", (event.get("source", ""), event["id"]))
        if noted.rowcount == 0:
            print(event["id"], "was done before", file=sys.stderr, flush=True)
        else:
            work(db, event)


def book(db, event):
    """Adds a charge to its customer's account."""
    if event["type"] != "stripe.charge.succeeded":
        return
    charge = event["data"]["data"]["object"]
    db.execute(
        """INSERT INTO accounts AS a (customer, balance) VALUES (%s, %s)
        ON CONFLICT (customer) DO UPDATE SET balance = a.balance + excluded.balance""",
        (charge["customer"], charge["amount"]),
    )


def work_on(db):
    while True:
        for leased in call("pull", {"max": 8, "wait": "20s", "lease": LEASE})["data"]:
            lease = leased["lease"]
            # It may have waited for those before it: is it still this worker's?
            if call("extend", {"leases": [lease], "lease": LEASE})["lost"]:
                continue
            try:
                once(db, leased["event"], book)
            except psycopg.OperationalError:
                raise  # the database is away: the lease ends, and the event comes again
            except Exception as error:
                call("nack", {"leases": [lease], "message": str(error)})
            else:
                call("ack", {"leases": [lease]})


def main():
    while True:
        try:
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
                work_on(db)
        except (OSError, psycopg.OperationalError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                raise  # trying again is no use: another key, or no such subscription
            print(error, file=sys.stderr, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
