// Verifies webhooks with npm standardwebhooks. Each line of stdin is {"secret", "headers", "body"} with the body in
// base64; each line of stdout is "ok", or why not.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64"), headers);
    console.log("ok");
  } catch (err) {
    console.log(String(err.message).replaceAll("\n", " "));
  }
}
