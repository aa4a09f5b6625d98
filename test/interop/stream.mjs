// Follows the log with other people's clients, over the ends of its connections: node stream.mjs eventsource|ws URL. Prints
// {"sequence", "cursor"} for each event, until it is killed.
import { EventSource } from "eventsource";
import WebSocket from "ws";

const [kind, url] = process.argv.slice(2);
const print = (event) => console.log(JSON.stringify({ sequence: event.sequence, cursor: event.cursor }));

if (kind === "eventsource") {
  const source = new EventSource(url);
  source.onmessage = (m) => {
    const event = JSON.parse(m.data);
    if (m.lastEventId !== event.cursor) throw new Error(`the id is ${m.lastEventId}, the cursor ${event.cursor}`);
    print(event);
  };
  source.onerror = (e) => console.error("error", e.code, e.message, e.data);
} else {
  let cursor = "0";
  const connect = () => {
    const socket = new WebSocket(`${url}&after=${cursor}`);
    let granted = 0;
    const grant = (events) => {
      granted += events;
      socket.send(JSON.stringify({ type: "grant", events }));
    };
    socket.on("message", (text) => {
      const frame = JSON.parse(text);
      if (frame.type === "ready") grant(20);
      if (frame.cursor) cursor = frame.cursor;
      if (frame.type !== "event") return;
      if (--granted < 0) throw new Error("more than was granted");
      print(frame.event);
      if (granted <= 10) grant(10);
    });
    socket.on("error", (err) => console.error("error", err.message));
    socket.on("close", (code, reason) => {
      console.error("closed", code, String(reason));
      setTimeout(connect, 100);
    });
  };
  connect();
}
