// Signs webhooks with the libraries of those who send them, and sends each twice. The argument is {"stripe", "standard",
// "github"}, each with "url" and "secret"; each line of stdout is {"kind", "id", "body", "statuses"}.
import { Webhooks } from "@octokit/webhooks";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";

const sources = JSON.parse(process.argv[2]);
const bodies = [
  '{"amount":4200}',
  '{ "spaces" : [1,  2 ],\n\t"order":1}',
  '{"big":12345678901234567890.10e+2,"plain":"é\u2028 😀"}',
];
const stripe = new Stripe("sk_test_unused");
const github = new Webhooks({ secret: sources.github.secret });

const signers = {
  stripe(id, body) {
    const payload = `{"id":"${id}","type":"charge.succeeded","data":${body}}`;
    return [payload, { "Stripe-Signature": stripe.webhooks.generateTestHeaderString({ payload, secret: sources.stripe.secret }) }];
  },
  standard(id, body) {
    const now = new Date();
    const signature = new Webhook(sources.standard.secret).sign(id, now, body);
    return [body, { "webhook-id": id, "webhook-timestamp": String(Math.floor(now.getTime() / 1000)), "webhook-signature": signature }];
  },
  async github(id, body) {
    return [body, { "X-GitHub-Delivery": id, "X-GitHub-Event": "push", "X-Hub-Signature-256": await github.sign(body) }];
  },
};

for (const [kind, sign] of Object.entries(signers)) {
  for (const [i, data] of bodies.entries()) {
    const id = `evt_${kind}_${i}`;
    const [body, headers] = await sign(id, data);
    const statuses = [];
    const send = async (content) => {
      const answer = await fetch(sources[kind].url, { method: "POST", body: content, headers: { "Content-Type": "application/json", ...headers } });
      await answer.arrayBuffer();
      statuses.push(answer.status);
    };
    await send(body);
    await send(body);
    await send(body.replace(/\d/, "7")); // the signature is another body's
    console.log(JSON.stringify({ kind, id, body, statuses }));
  }
}
