"""Signs webhooks with the Python libraries of those who send them, and sends each three times.

The argument is {"adyen", "stripe", "svix"}, each with "url" and "secret"; each line of stdout is {"kind", "id", "body", "statuses"}.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from datetime import datetime, timezone

import stripe
import svix
from Adyen.util import generate_notification_sig, is_valid_hmac_notification

SOURCES = json.loads(sys.argv[1])
BODIES = [
    '{"amount":4200}',
    '{ "spaces" : [1,  2 ],\n\t"order":1}',
    '{"big":12345678901234567890.10e+2,"plain":"é\u2028 😀"}',
]


def sign_adyen(id, data):
    fields = {
        "pspReference": id,
        "originalReference": "",
        "merchantAccountCode": "Example",
        "merchantReference": "order:é😀",
        "amount": {"value": 1130, "currency": "EUR"},
        "eventCode": "AUTHORISATION",
        "success": "true",
    }
    signature = generate_notification_sig(fields, SOURCES["adyen"]["secret"]).decode()
    members = json.dumps(fields)[1:-1]  # with escapes
    body = (
        '{"live":"false","notificationItems":[{"NotificationRequestItem":{'
        f'{members},"additionalData":{{"note":{data},"hmacSignature":"{signature}"}}}}}}]}}'
    )
    assert is_valid_hmac_notification(json.loads(body), SOURCES["adyen"]["secret"])
    return f"{id}.AUTHORISATION.true", body, {}


def sign_stripe(id, data):
    body = f'{{"id":"{id}","type":"charge.succeeded","data":{data}}}'
    header = stripe.WebhookSignature.generate_signature_header(body, SOURCES["stripe"]["secret"])
    return id, body, {"Stripe-Signature": header}


def sign_svix(id, data):
    now = datetime.now(timezone.utc)
    signature = svix.Webhook(SOURCES["svix"]["secret"]).sign(id, now, data)
    return id, data, {"svix-id": id, "svix-timestamp": str(int(now.timestamp())), "svix-signature": signature}


def send(url, body, headers):
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


for kind, sign in {"adyen": sign_adyen, "stripe": sign_stripe, "svix": sign_svix}.items():
    for i, data in enumerate(BODIES):
        id, body, headers = sign(f"evt_{kind}_{i}", data)
        changed = re.sub(r"\d", "7", body, count=1)  # the signature is another body's
        statuses = [send(SOURCES[kind]["url"], content, headers) for content in (body, body, changed)]
        print(json.dumps({"kind": kind, "id": id, "body": body, "statuses": statuses}))
