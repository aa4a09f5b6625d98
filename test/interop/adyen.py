"""Signs and judges Adyen's notifications with its library for Python.

The argument is the HMAC key. Each line of stdin is ["sign", bodies] or ["judge", bodies], each body in base64; each of stdout is, for
each body, the signature of its first item, or whether the library takes it. What the library cannot read it answers with null.
"""

import base64
import json
import sys

from Adyen.util import generate_notification_sig, is_valid_hmac_notification

KEY = sys.argv[1]


def sign(notification):
    item = notification["notificationItems"][0]["NotificationRequestItem"]
    return generate_notification_sig(item, KEY).decode()


def judge(notification):
    return is_valid_hmac_notification(notification, KEY) is True


def answer(how, body):
    try:
        return how(json.loads(base64.b64decode(body)))
    except Exception:  # whatever it raises, a receiver would refuse
        return None


for line in sys.stdin:
    what, bodies = json.loads(line)
    how = {"sign": sign, "judge": judge}[what]
    print(json.dumps([answer(how, body) for body in bodies]), flush=True)
