// Other people's GraphQL clients: node graphql.mjs graphql-ws|graphql-sse|schema URL, with the API key in EVENTHOSE_API_KEY.
// The first two follow the log over the ends of their connections and print {"sequence", "cursor"} for each event, until they
// are killed. The last reads the schema by introspection and compares it with the document FILE.
import { readFileSync } from "node:fs";
import { buildClientSchema, buildSchema, getIntrospectionQuery, lexicographicSortSchema, printSchema } from "graphql";
import { createClient as createSSEClient } from "graphql-sse";
import { createClient as createWSClient } from "graphql-ws";
import WebSocket from "ws";

const [kind, url, file] = process.argv.slice(2);
const authorization = `Bearer ${process.env.EVENTHOSE_API_KEY}`;

if (kind === "schema") {
  const answer = await fetch(url, {
    method: "POST",
    headers: { authorization, "content-type": "application/json", accept: "application/graphql-response+json" },
    body: JSON.stringify({ query: getIntrospectionQuery() }),
  });
  const { data, errors } = await answer.json();
  if (errors) throw new Error(JSON.stringify(errors));
  const print = (schema) => printSchema(lexicographicSortSchema(schema));
  const [served, written] = [print(buildClientSchema(data)), print(buildSchema(readFileSync(file, "utf8")))];
  if (served !== written) throw new Error(`the server says\n${served}\nand the document\n${written}`);
  console.log(`${Object.keys(data.__schema.types).length} types are the same`);
} else {
  const retry = { retryAttempts: 1000, retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)) };
  const client =
    kind === "graphql-ws"
      ? createWSClient({ url: url.replace(/^http/, "ws"), webSocketImpl: WebSocket, connectionParams: { authorization }, shouldRetry: () => true, ...retry })
      : createSSEClient({ url, headers: { authorization }, retryAttempts: retry.retryAttempts, retry: retry.retryWait });
  // Both clients send the variables as they are when they connect again, so the cursor moves on in them.
  const variables = { after: "0" };
  client.subscribe(
    { query: "subscription($after: String) { events(after: $after) { cursor event { sequence type data } } }", variables },
    {
      next({ data, errors }) {
        if (errors) throw new Error(JSON.stringify(errors));
        variables.after = data.events.cursor;
        const { event } = data.events;
        if (!event) return;
        if (event.data.text !== "line\nline\r\u2028 é") throw new Error(`the data is ${JSON.stringify(event.data)}`);
        console.log(JSON.stringify({ sequence: event.sequence, cursor: data.events.cursor }));
      },
      error(err) {
        throw err instanceof Error ? err : new Error(JSON.stringify(err));
      },
      complete() {
        throw new Error("it is complete");
      },
    },
  );
}
