"""Takes charges that Stripe sent from a source's inbox and books them in PostgreSQL: each once, whenever it, the server or
the database is killed. Run as many as you like.

    pip install 'psycopg[binary]'
    psql "$DATABASE_URL" --file schema.sql
    DATABASE_URL=postgres://… EVENTHOSE_URL=http://127.0.0.1:8080 EVENTHOSE_API_KEY=… python worker.py sub_…
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

import psycopg

SUBSCRIPTION = f"{os.environ['EVENTHOSE_URL']}/v1/tenants/default/subscriptions/{sys.argv[1]}"
LEASE = "3s"  # how soon another worker takes over from one that has died: longer than the work of an event takes


def call(verb, body):
    """Asks the server. One that is away or busy is an OSError, and so is a refusal; an answer that breaks off is an HTTPException."""
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


def work_on(db, leased):
    """Does the work of an event and says what became of it."""
    try:
        once(db, leased["event"], book)
    except Exception as error:
        if isinstance(error, psycopg.OperationalError) and db.closed:
            raise  # the database is away, which is no fault of the event's
        call("nack", {"leases": [leased["lease"]], "message": str(error)})
    else:
        call("ack", {"leases": [leased["lease"]]})


def main():
    db = leased = None
    while True:
        try:
            # One at a time: others would wait for this one while their leases end.
            if leased is None:
                leased = next(iter(call("pull", {"max": 1, "wait": "20s", "lease": LEASE})["data"]), None)
            # The database or the server was away while it was worked on: is it still this worker's?
            elif call("extend", {"leases": [leased["lease"]], "lease": LEASE})["lost"]:
                leased = None
            if leased is not None:
                if db is None or db.closed:
                    db = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
                work_on(db, leased)
                leased = None
        except (OSError, http.client.HTTPException, psycopg.OperationalError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                raise  # trying again is no use: another key, or no such subscription
            print(error, file=sys.stderr, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
