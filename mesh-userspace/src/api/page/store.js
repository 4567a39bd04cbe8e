// What the daemon says, kept up to date: one snapshot, then what changes. Nothing is computed here that the daemon can.
const store = (() => {
  const REMEMBERED = 60;
  const state = { status: null, ready: null, totals: null, time: null, leftOut: 0, services: new Map(), endpoints: new Map() };
  // The last minute of each service, and of all (under null).
  const history = new Map();
  // Endpoints by service, in order; made anew when one comes or goes.
  let grouped = null;
  let generation = 0;

  const inOrder = new Intl.Collator("en", { numeric: true }).compare;
  const key = (endpoint) => `${endpoint.service} ${endpoint.address}`;
  // What is asked of a service: requests where there are any, else connections.
  const pace = (row) => ((row.requests_total ?? row.responses_total) > 0 ? row.requests_per_s : row.connections_per_s);

  const put = (map, id, row) => {
    const known = map.get(id);
    if (known) return Object.assign(known, row);
    map.set(id, row);
    grouped = null;
    generation += 1;
  };
  const remember = (name, value) => {
    const points = history.get(name) ?? [];
    points.push(value ?? 0);
    if (points.length > REMEMBERED) points.shift();
    history.set(name, points);
  };

  const take = (message) => {
    for (const name of ["time", "ready"]) if (message[name] !== undefined) state[name] = message[name];
    if (message.endpoints_left_out !== undefined) state.leftOut = message.endpoints_left_out;
    if (message.status) state.status = Object.assign(state.status ?? {}, message.status);
    if (message.totals) state.totals = Object.assign(state.totals ?? {}, message.totals);
    for (const service of message.services ?? []) put(state.services, service.name, service);
    for (const endpoint of message.endpoints ?? []) put(state.endpoints, key(endpoint), endpoint);
    for (const service of state.services.values()) remember(service.name, pace(service));
    remember(null, (state.totals?.requests_per_s ?? 0) + (state.totals?.connections_per_s ?? 0));
  };
  const snapshot = (message) => {
    for (const map of [state.services, state.endpoints]) map.clear();
    grouped = null;
    generation += 1;
    take(message);
    for (const name of history.keys()) if (name !== null && !state.services.has(name)) history.delete(name);
  };
  const delta = (message) => {
    const gone = message.removed ?? {};
    for (const name of gone.services ?? []) {
      state.services.delete(name);
      history.delete(name);
    }
    for (const endpoint of gone.endpoints ?? []) state.endpoints.delete(key(endpoint));
    if (message.removed) {
      grouped = null;
      generation += 1;
    }
    take(message);
  };

  const of = (service) => {
    if (!grouped) {
      grouped = new Map();
      for (const endpoint of state.endpoints.values()) {
        const group = grouped.get(endpoint.service);
        if (group) group.push(endpoint);
        else grouped.set(endpoint.service, [endpoint]);
      }
      for (const group of grouped.values()) group.sort((a, b) => inOrder(a.address, b.address));
    }
    return grouped.get(service) ?? [];
  };

  // How an endpoint is, in one word: the worst that is true of it.
  const standing = (endpoint) => {
    if (endpoint.circuit === "open") return "open";
    if (endpoint.health === "unhealthy") return "unhealthy";
    if (endpoint.circuit === "half_open") return "probing";
    if (endpoint.draining) return "draining";
    return endpoint.weight === 0 ? "idle" : "good";
  };
  const WORST = ["open", "unhealthy", "probing", "draining", "idle", "good"];
  const severity = (endpoint) => WORST.indexOf(standing(endpoint));

  return {
    state, snapshot, delta, of, key, pace, standing, severity, inOrder, WORST,
    past: (name) => history.get(name) ?? [],
    generation: () => generation,
  };
})();
