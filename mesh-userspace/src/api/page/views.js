// What is asked for only while it is looked at: connections, traces, errors; and how the daemon itself is.
const views = (() => {
  const { h, text, attr, tint } = dom;
  const { path } = parts;
  const { count, bytes, age, NOTHING } = format;

  // A view of a list that is asked for: `rows` makes the list's rows of an answer.
  const asked = ({ title, what, lead, all, ask, seconds, rows = (data) => data, prepare }) => {
    let told = {};
    const poll = stream.poll(ask, seconds, (answer) => app.refresh((told = answer)));
    const update = () => {
      const found = rows(told.data ?? []);
      prepare?.(found);
      parts.listed(all, what ?? title, told, found);
    };
    return { title, list: all, element: h("div", {}, h("p", { class: "lead" }, lead), all.element), stop: poll, again: poll.again, update };
  };

  const connections = () => {
    // Which come first is the daemon's to say: of the rest nothing is known here.
    const SORTS = ["sent", "received", "age", "rtt"];
    const all = parts.connections(() => view.again());
    const sort = () => SORTS.find((sort) => sort === all.order().column) ?? "received";
    const lead = "Open connections to services of this node: the 500 that come first in this order.";
    const view = asked({ title: "Connections", lead, all, ask: () => `v1/connections?sort=${sort()}&limit=500`, seconds: 2, prepare: parts.compared() });
    return view;
  };

  const errors = () =>
    asked({ title: "Errors", what: "Request logs", lead: "Those of the last 1,000 requests that failed.", all: parts.errors(), ask: () => "v1/logs?limit=1000", seconds: 3, rows: parts.failed });

  const traces = () => {
    let longest = 1;
    const all = list.create({
      name: "traces",
      label: "Traces",
      sort: { column: "start", falls: true },
      empty: "No traces yet: a share of the requests is traced (telemetry.tracing.sample_rate).",
      key: (row) => row.trace_id + row.start,
      href: (row) => path("traces", row.trace_id),
      columns: [
        parts.at("start", "Start"),
        {
          name: "what", title: "Request", by: (row) => row.path ?? "", exact: (row) => row.path,
          update: (cell, row) => parts.named(cell, `${row.method ?? ""} ${row.path ?? ""}`, path("traces", row.trace_id), [row.status < 500 ? "good" : "bad", ""]),
        },
        parts.went,
        parts.amount("status", "Status", "status"),
        {
          ...parts.amount("took", "Took", "duration_ms"),
          update: (cell, row) => {
            if (!cell.firstChild) cell.append(h("span"), h("span", { class: "track" }, h("i")));
            text(cell.firstChild, format.ms(row.duration_ms));
            dom.style(cell.lastChild.firstChild, "width", `${Math.max(1, (100 * row.duration_ms) / longest).toFixed(1)}%`);
          },
        },
        parts.attempts,
      ],
    });
    const lead = "The last sampled requests. Open one to see where its time went.";
    const prepare = (rows) => (longest = Math.max(0.001, ...rows.map((row) => row.duration_ms)));
    return asked({ title: "Traces", lead, all, ask: () => "v1/traces?limit=200", seconds: 3, prepare });
  };

  const trace = (id) => {
    let told = {};
    const spans = h("div");
    const note = h("p", { class: "nothing" });
    const stop = stream.poll(() => `v1/traces/${encodeURIComponent(id)}`, 5, (answer) => app.refresh((told = answer)));
    return {
      title: "Trace",
      up: path("traces"),
      element: h("div", {}, parts.crumbs(["Traces", path("traces")], [id]), note, h("section", { class: "card" }, spans)),
      stop,
      update: () => {
        const { data, missing } = told;
        text(note, missing ? "This trace is not kept (any more)." : "Asking…");
        note.hidden = Boolean(data);
        spans.parentNode.hidden = !data;
        if (data) draw.waterfall(spans, data.spans);
      },
    };
  };

  const status = () => {
    const facts = h("dl", { class: "facts" });
    const warnings = h("ul", { class: "warnings" });
    const quiet = h("p", { class: "dim" }, "Nothing to warn of.");
    const either = (is) => (is ? "good" : "bad");
    const sources = parts.table("Sources", [
      ["Source", (row) => row.name],
      ["State", (row) => (row.stale_since ? "out of touch" : row.synced ? "synced" : "not yet synced"), (row) => either(row.synced && !row.stale_since && !row.error)],
      ["Last update", (row) => (row.last_update ? `${age(Date.parse(store.state.time) - Date.parse(row.last_update))} ago` : NOTHING)],
      ["Error", (row) => row.error ?? "", () => "bad"],
    ]);
    const programs = parts.table("Programs", [
      ["Program", (row) => row.name],
      ["Hook", (row) => row.hook],
      ["State", (row) => (row.attached ? "attached" : (row.missing_reason ?? "missing")), (row) => either(row.attached)],
      ["Runs", (row) => count(row.runs)],
      ["Mean", (row) => (row.mean_ns === null ? NOTHING : `${row.mean_ns} ns`)],
    ]);
    const cards = [
      parts.card("Daemon", facts),
      parts.card("Warnings", warnings, quiet),
      parts.card("Sources of services", sources.element),
      parts.card("Programs in the kernel", programs.element),
    ];
    return {
      title: "Status",
      element: h("div", { class: "status" }, ...cards),
      update: () => {
        const { status, ready } = store.state;
        if (!status) return;
        const { proxy, memory, config } = status;
        const rows = [
          ["Ready", ready?.ready ? "yes" : ready?.reasons.join("; "), either(ready?.ready)],
          ["Interception", ...({ true: ["works", "good"], false: ["does not work", "bad"] }[status.interception_ok] ?? ["not known"])],
          ["Bypass", status.bypass ? "on: nothing is translated" : "off", status.bypass ? "bad" : null],
          ["Node", status.node],
          ["Version", `${status.version}, pid ${status.pid}`],
          ["Up for", age(status.uptime_s * 1000)],
          ["Mode", status.mode],
          ["Configuration", config.error ? `refused, the one before stays: ${config.error}` : `${config.path ?? "defaults"}, loaded ${config.loaded_at}`, config.error ? "bad" : null],
          ["Proxy", proxy ? `${proxy.workers} workers, ${count(proxy.connections)} connections, explicit at ${proxy.http ?? (proxy.http_error || "nowhere")}` : "off", proxy && (!proxy.workers_ok || proxy.http_error) ? "bad" : null],
          ["Memory", memory ? `${bytes(memory.resident_bytes)} resident, ${bytes(memory.kernel_bytes)} in the kernel` : NOTHING],
          ["Cgroup", status.cgroup ?? NOTHING],
          ["Pins", status.bpffs ?? NOTHING],
        ];
        dom.each(facts, rows, () => h("div", {}, h("dt"), h("dd")), (line, [name, value, tone]) => {
          text(line.firstChild, name);
          text(line.lastChild, value ?? NOTHING);
          tint(line.lastChild, tone);
          attr(line.lastChild, "data-field", name);
        });
        dom.each(warnings, status.warnings, () => h("li"), text);
        quiet.hidden = status.warnings.length > 0;
        sources.update(status.sources);
        programs.update(status.programs);
      },
    };
  };

  return { connections, errors, traces, trace, status };
})();
