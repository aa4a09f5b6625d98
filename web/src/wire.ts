// What the API answers, as far as the pages read it.

export interface Session {
  kind: "session" | "key" | "portal"
  subject: string
  tenant?: string
  scopes: string[]
  capabilities?: string[]
  /** A link that is limited to these. */
  subscriptions?: string[]
  expires?: string
}

export interface Percentiles {
  p50_ms: number
  p95_ms: number
  p99_ms: number
}

export interface Point {
  time: string
  events: number
  bytes: number
  attempts: number
  taken: number
  failed: number
  first_taken: number
  duration: Percentiles
  lag: Percentiles
}

export interface Overview {
  tenant: string
  head: { first: number; last: number; cursor: string }
  events_per_s: number
  deliveries_per_s: number
  first_try: number | null
  lag: { p50_ms: number; p99_ms: number }
  oldest: { age: string; subscription: string } | null
  subscriptions: { total: number; active: number; paused: number; disabled: number; failing: number }
  parked: { retrying: number; waiting: number; dead: number }
  sources: number
  partial?: boolean
}

export interface Event {
  id: string
  type: string
  sequence: number
  key?: string
  time: string
  appended: string
  cursor: string
  version?: string
  origin?: { tenant: string; sequence: number; id: string }
  attributes?: Record<string, string>
  content_type?: string
  data?: unknown
  data_base64?: string
  data_omitted?: boolean
  erased?: boolean
  source?: string
  tenant?: string
  /** The event as it was written, for data that must not be read as numbers. */
  text?: string
  deliveries?: Record<"taken" | "pending" | "retrying" | "waiting" | "dead", number>
}

export interface Phases {
  dns?: string
  connect?: string
  tls?: string
  wait?: string
}

export interface Attempt {
  id: string
  subscription: string
  events: string[]
  sequences?: number[]
  kind: string
  batch?: string
  number: number
  outcome: "taken" | "failed" | "gone"
  reason?: string
  message?: string
  status?: number
  started: string
  duration: string
  phases?: Phases
  url?: string
  address?: string
  response_headers?: Record<string, string>
  response_body?: string
  next?: string
  replay?: string
  failed?: number[]
  request?: { method: string; url: string; headers: Record<string, string>; body: string; body_truncated?: boolean }
  event_gone?: boolean
  diagnosis?: Diagnosis
}

export interface Diagnosis {
  title: string
  detail: string
  fix?: string
}

export interface Delivery {
  subscription: string
  state: "pending" | "delivered" | "retrying" | "waiting" | "leased" | "dead"
  attempts: Attempt[]
}

export interface EventStatus extends Omit<Event, "deliveries"> {
  deliveries: Delivery[]
}

export interface Replay {
  id: string
  from: number
  to: number
  types?: string[]
  status?: string
  at: number
  sent: number
  created: string
}

export interface Lane {
  cursor: string
  lag: number
  in_flight: number
  retrying: number
  leased?: number
  blocked_keys: number
  waiting: number
  dead: number
  circuit: "open" | "closed"
  failing_since?: string
  last_success?: string
  next?: string
  replays?: Replay[]
}

export interface Destination {
  type: string
  url: string
  headers?: Record<string, string>
  signature?: string
  format?: string
  compression?: string
}

export interface Subscription {
  id: string
  name?: string
  state: "active" | "paused" | "disabled"
  reason?: string
  source?: string
  public_key?: string
  filter?: { types?: string[]; keys?: string[]; attributes?: Record<string, string>; expression?: string }
  ordering: "none" | "key" | "strict"
  on_exhausted: "park" | "block"
  retry: { schedule?: string[]; timeout?: string; disable_after?: string }
  max_in_flight?: number
  max_rate?: number
  batch?: { max_events?: number; max_bytes?: number; max_wait?: string }
  destination?: Destination
  created: string
  updated: string
  secret?: string
  status?: Lane
  metrics?: Spark
}

export interface Spark {
  attempts: number
  taken: number
  failed: number
  first_taken: number
  duration: Percentiles
  spark: number[]
  spark_failed: number[]
}

export interface Parked {
  subscription?: string
  event: string
  sequence: number
  type: string
  key?: string
  state: "retrying" | "waiting" | "leased" | "dead"
  attempts: number
  since: string
  due?: string
  status?: number
  reason?: string
  message?: string
}

export interface Source {
  id: string
  provider: string
  name?: string
  url: string
  secrets?: string[]
  public_keys?: string[]
  public_url?: string
  tolerance?: string
  type_prefix?: string
  options?: Record<string, string>
  subscription: string
  created: string
  updated: string
}

export interface Rejection {
  id: string
  source: string
  received: string
  reason: string
  detail: string
  method: string
  size: number
  /** body is base64 */
  request?: { query?: string; header: Record<string, string[]>; body: string; truncated?: boolean }
}

export interface InboxItem {
  event: string
  sequence: number
  source: string
  provider: string
  topic: string
  key?: string
  status: "pending" | "processed" | "failed" | "dead"
  received: string
  processed?: string
  attempts: number
  last_error?: string
}

export interface Inspector {
  id: string
  name?: string
  url: string
  destination: string
  status: number
  delay?: string
  fail_rate?: number
  body?: string
  expires: string
  created?: string
}

export interface Inspected {
  id: string
  time: string
  method: string
  path: string
  query?: string
  headers: Record<string, string[] | string>
  body?: string
  body_base64?: string
  body_truncated?: boolean
  signature: string
  answered: number
  took: string
}

export interface Tenant {
  id: string
  parent?: string
  retention?: { age?: string; bytes?: number; dead_bytes?: number }
  created: string
  updated: string
}

export interface Key {
  id: string
  name?: string
  tenant?: string
  scopes: string[]
  created: string
  expires?: string
  revoked?: string
  last_used?: string
}

export interface PortalLink {
  id: string
  name?: string
  capabilities: string[]
  subscriptions?: string[]
  created?: string
  expires: string
  url?: string
  token?: string
}

export interface Entry {
  id: string
  time: string
  actor: { kind: string; id: string; name?: string }
  action: string
  tenant?: string
  target?: string
  address?: string
  request_id?: string
  changes?: Record<string, [unknown, unknown]>
}

export interface Health {
  version: string
  started: string
  node: string
  store: "embedded" | "postgresql"
  checks: Record<string, string>
  disk?: { data: number; free: number; total: number }
  database?: { version: string; connections: { open: number; in_use: number; max: number } }
  nodes?: { id: string; leases: number; until?: string; self?: boolean }[]
  leases?: { held: number; total: number }
  streams?: number
  retention_of_metrics?: string
}
