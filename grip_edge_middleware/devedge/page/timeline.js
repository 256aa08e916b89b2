// Draws what the edge tells as a sequence diagram: places side by side, time flowing down.
//
// Whatever comes from outside (paths, channels, headers) becomes text nodes only.

const X = { client: narrow() ? 15 : 17, proxy: 41, cache: 65, app: 90 };
const ORDER = ["client", "proxy", "cache", "app"];
const NAMES = { client: "client", proxy: "GRIP proxy", cache: "cache", app: "app" };
const NEXT_LINK = "/.grip-edge/next/";
const MAX_ROWS = 240;
const MAX_WAITING = 500; // while paused
const MAX_SENTENCES = 40;
const PAUSE_S = 1.5; // a silence that is worth a line
const BURST_S = 0.7; // what comes within this is counted from its beginning
const TOGETHER_S = 0.4; // connections that close within this share a line
const BATCH_S = 0.05; // and what is published within this
const LINE_Y = 31;

const $ = (id) => document.getElementById(id);
const scroller = $("scroller");
const list = $("rows");

function narrow() {
  return matchMedia("(max-width: 44rem)").matches;
}
function maxLanes() {
  return narrow() ? 4 : 7;
}

// ------------------------------------------------------------------------ what is known

let rows = []; // in order of time: what is drawn
let trips = new Map(); // a request, what it became, and its answer
let holds = new Map(); // clients that are held: which rows their bars join
let lastId = 0;

function forget() {
  rows = [];
  trips = new Map();
  holds = new Map();
}

// Keeps who is held: their bars go on from the top.
function clearRows() {
  for (const [id, hold] of holds) {
    if (hold.end) holds.delete(id);
    else hold.begin = null;
  }
  trips = new Map();
  rows = [];
  select(null);
}

function addRow(row) {
  row.id = ++lastId;
  row.isFresh = true;
  // What another process tells may come a little late.
  let at = rows.length;
  while (at > 0 && rows[at - 1].at > row.at && rows.length - at < 40) at -= 1;
  rows.splice(at, 0, row);
  for (const gone of rows.splice(0, Math.max(rows.length - MAX_ROWS, 0))) forgetRow(gone);
  return row;
}

function forgetRow(row) {
  row.isGone = true;
  if (row.trip && row.kind === "back") trips.delete(row.trip.number);
  for (const [id, hold] of holds) {
    if (hold.end === row) holds.delete(id);
    else if (hold.begin === row) hold.begin = null;
  }
}

const TAKEN = {
  request(h) {
    const trip = trips.get(h.trip);
    if (trip) {
      trip.far = h.target;
      trip.legs.push(h);
      trip.out.far = h.target;
      return;
    }
    const begun = { number: h.trip, near: h.source, far: h.target, text: h.text, legs: [h], seen: "" };
    begun.isLink = h.text.includes(NEXT_LINK);
    begun.out = addRow({ kind: "out", at: h.at, near: h.source, far: h.target, trip: begun });
    trips.set(h.trip, begun);
  },
  answer(h) {
    const trip = trips.get(h.trip);
    if (!trip) return;
    trip.legs.push(h);
    trip.seen ||= h.seen || "";
    trip.keys = h.keys ? tellingFirst(h.keys) : trip.keys;
    trip.channels = h.names || trip.channels;
    if (trip.hold && trip.hold.mode === "http-response" && h.target === "client") {
      if (!trip.hold.isPushed) trip.hold.timedOut = addRow({ kind: "late", at: h.at, near: "client", far: "proxy", trip, told: h });
      return;
    }
    trip.took = h.took_s;
    trip.status = h.text;
    if (trip.back) trip.back.near = h.target;
    else trip.back = addRow({ kind: "back", at: h.at, near: h.target, far: h.source, trip });
    if (h.target === trip.near) say(saidOfTrip(trip));
  },
  hold(h) {
    const known = holds.get(h.trip);
    if (known) {
      known.names = h.names || [];
      return;
    }
    const trip = trips.get((h.holds || [])[0]);
    const hold = { number: h.trip, mode: h.text, names: h.names || [], lane: freeLane(), told: h };
    if (trip && trip.back && !trip.back.isGone) {
      hold.begin = trip.back;
      trip.back.hold = hold;
      trip.hold = hold;
    } else {
      hold.begin = addRow({ kind: "hold", at: h.at, near: "client", far: "proxy", hold, told: h });
    }
    holds.set(h.trip, hold);
    say(`A client is held open for ${named(hold.names)}`);
  },
  release(h) {
    const hold = holds.get(h.trip);
    if (!hold || hold.end) return;
    const last = rows[rows.length - 1];
    if (last && last.kind === "release" && h.at - last.at < TOGETHER_S) {
      last.ended.push(hold);
      hold.end = last;
    } else {
      hold.end = addRow({ kind: "release", at: h.at, near: "client", far: "proxy", ended: [hold], told: h });
    }
    say(`A connection for ${named(hold.names)} ended`);
  },
  push(h) {
    const reached = (h.holds || []).map((number) => holds.get(number)).filter(Boolean);
    const row = addRow({ kind: "push", at: h.at, near: "client", far: "proxy", told: h, reached });
    for (const hold of reached) {
      hold.isPushed = true;
      // It was no silence that ended it.
      rows = rows.filter((each) => each !== hold.timedOut);
      if (hold.mode === "http-response") endAt(hold, row);
    }
    say(`The GRIP proxy pushed ${named(h.names)} to ${counted(h.count, "client")}`);
  },
  purge(h) {
    addRow({ kind: "purge", at: h.at, near: "app", far: "cache", told: h });
    say(`The app purged ${named(h.names) || "everything"}: ${counted(h.count || 0, "copy", "copies")} dropped`);
  },
  publish(h) {
    const last = rows[rows.length - 1];
    if (last && last.kind === "publish" && last.told.text === h.text && h.at - last.at < BATCH_S) last.batch.push(h);
    else addRow({ kind: "publish", at: h.at, near: "app", far: "proxy", told: h, batch: [h] });
    say(`The app published ${h.text === "marker" ? "a marker" : "a message"} on ${named(h.names)} to the GRIP proxy`);
  },
  recover(h) {
    addRow({ kind: "recover", at: h.at, near: "app", far: "proxy", told: h });
    say("The app had the GRIP proxy ask for what everybody missed");
  },
  save(h) {
    addRow({ kind: "save", at: h.at, near: "app", far: "app", told: h });
    say(`The app saved a change of ${named(h.names)}`);
  },
  note(h) {
    addRow({ kind: "note", at: h.at, near: "app", far: "app", told: h });
    say(h.text);
  },
};

// A long-poll ends with what it is answered: that needs no line of its own.
function endAt(hold, row) {
  const ended = hold.end;
  hold.end = row;
  if (!ended || ended.kind !== "release") return;
  ended.ended = ended.ended.filter((each) => each !== hold);
  if (ended.ended.length === 0) rows = rows.filter((each) => each !== ended);
}

function freeLane() {
  const taken = new Set([...holds.values()].filter((hold) => !hold.end).map((hold) => hold.lane));
  let lane = 0;
  while (taken.has(lane)) lane += 1;
  return lane;
}

// ------------------------------------------------------------------------ what is said of it

function named(names) {
  return (names || []).join(", ");
}
// Those that stand for all of a kind come last.
function tellingFirst(names) {
  return [...(names || [])].sort((a, b) => a.includes("%") - b.includes("%"));
}
function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}
function milliseconds(seconds) {
  const ms = seconds * 1000;
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 9999 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(0)} s`;
}

// What became of a request: what its colour says.
function fate(trip) {
  if (trip.isLink && trip.near === "proxy") return "link";
  if (trip.status === "no answer") return "error";
  if (!/^(GET|HEAD) /.test(trip.text)) return "pass";
  return trip.seen ? trip.seen.toLowerCase() : trip.far === "app" ? "miss" : "wait";
}

function saidOfTrip(trip) {
  const who = trip.near === "client" ? "A client" : `The ${NAMES[trip.near]}`;
  const where = { HIT: "answered by the cache", STALE: "answered by the cache with an old copy", MISS: "answered by the app" };
  const took = trip.took === undefined ? "" : ` in ${milliseconds(trip.took)}`;
  return `${who} asked ${trip.text}: ${where[trip.seen] || "answered"}, ${trip.status}${took}`;
}

const WHY = {
  hit: "The cache had a copy, so the request turned back there. The app was not asked.",
  stale: "The app could not answer, so the cache showed the last good copy.",
  miss: "The cache had no fresh copy, so the app was asked. The surrogate keys of its answer say what it shows: under these the cache keeps it, and a purge finds it.",
  pass: "This cannot be answered from a cache: it goes through to the app.",
  link: "The proxy asks for a client whether anything came since the version that it has. If not, the answer is empty. The cache keeps these answers too, so a thousand clients cost the app nothing.",
  wait: "It is on its way.",
  error: "Nobody answered.",
  hold: "The answer carries GRIP instructions, from the cache as well as from the app. The proxy obeys them: it keeps the connection open and subscribes it to these channels. Neither the cache nor the app holds anything.",
  late: "There was no news for as long as a long-poll waits, so the client is told so, and asks again.",
  release: "The client went away, or its stream ended. Nobody else needs to know.",
  save: "A transaction was committed. The middleware saw which rows changed, and which topics show them.",
  purge: "First of all, the cache drops each copy that carries these keys. Whoever comes now gets it fresh. A little later it is purged again, for an answer that was on its way to the cache meanwhile.",
  publish: "After the purge, the new state goes to the proxy, past the cache. It says its version, and the version before it.",
  marker: "An empty message that only says which version is the latest. Who has it hears nothing; for who missed one, the proxy asks the next link.",
  push: "The proxy writes it to all connections that it holds for this channel. One publish, however many clients.",
  missed: "The next link said that these clients had missed something, so they are sent the page as it is now.",
  recover: "All clients are asked for what they missed.",
  note: "",
};

function say(text) {
  if (!isReplayed) saidLately.push(text);
}
const saidLately = [];
let isReplayed = false;

// ------------------------------------------------------------------------ elements

const SVG = "http://www.w3.org/2000/svg";

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}
function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
function at(x, y, ...children) {
  return shape("svg", { x: `${x}%`, y, width: 1, height: 1, overflow: "visible" }, ...children);
}
function line(x1, x2, y, className) {
  return shape("line", { x1: `${x1}%`, x2: `${x2}%`, y1: y, y2: y, class: className });
}
function head(x, y, isLeftward) {
  return at(x, y, shape("path", { d: isLeftward ? "M1 0l9-5v10z" : "M-1 0l-9-5v10z", class: "head" }));
}
function chip(text, kind) {
  return element("span", `chip ${kind}`, text);
}
function chips(names, kind, most = narrow() ? 1 : 2) {
  const shown = (names || []).slice(0, most).map((name) => chip(name, kind));
  const left = (names || []).length - most;
  return left > 0 ? [...shown, element("span", "ms", `+${left}`)] : shown;
}

// ------------------------------------------------------------------------ one row

function lookOf(row) {
  if (row.kind === "out" || row.kind === "back") return fate(row.trip);
  if (row.kind === "release" || row.kind === "late") return "wait";
  return row.kind === "recover" ? "publish" : row.kind;
}
function bandOf(row) {
  if (row.kind === "save") return "change";
  if (row.trip && row.kind !== "late") return { link: "catch", pass: "change" }[lookOf(row)] || "pull";
  if (row.kind === "push" && row.told.text === "missed") return "catch";
  return ["hold", "release", "note", "gap", "late"].includes(row.kind) ? "" : "push";
}
const BANDS = { pull: "pull", change: "change", push: "push", catch: "catch up" };

function labelOf(row) {
  const made = element("div", "label");
  const what = (text, kind = "") => made.append(element("span", `what ${kind}`, text));
  const { told, trip } = row;
  switch (row.kind) {
    case "out":
      if (lookOf(row) === "link") {
        made.classList.add("at-proxy");
        what("anything missed?");
        if (!narrow()) made.append(element("span", "ms", "next link"));
      } else {
        what(trip.text, "code");
      }
      if (trip.near === "proxy") made.classList.add("at-proxy");
      break;
    case "back":
      labelAnswer(made, row);
      break;
    case "hold":
      what(told.text === "ws-message" ? "WebSocket" : "held open");
      made.append(...chips(row.hold.names, "channel"));
      break;
    case "late":
      what(`${told.text}, no news in time`);
      made.append(element("span", "ms", milliseconds(told.took_s)));
      break;
    case "release":
      what(row.ended.length > 1 ? `${row.ended.length} connections closed` : "connection closed");
      break;
    case "save":
      made.classList.add("at-app");
      what("saved");
      made.append(...chips(told.names, "save"));
      break;
    case "purge":
      made.classList.add("at-app");
      what(told.text === "all" ? "purge everything" : "purge");
      made.append(...chips(tellingFirst(told.names), "key"), element("span", "ms", `✓ ${counted(told.count || 0, "copy", "copies")}`));
      break;
    case "publish":
      made.classList.add("at-app");
      what(told.text === "marker" ? "marker, nothing new" : "publish");
      made.append(...chips(row.batch.flatMap((each) => each.names || []), "channel"));
      break;
    case "push":
      what(told.text === "missed" ? "catches up" : "push");
      made.append(...chips(told.names, "channel", 1), element("b", "times", `× ${told.count}`), preview(told));
      break;
    case "recover":
      made.classList.add("at-app");
      what(`recover: ask for ${counted(told.count || 0, "client")}`);
      break;
    case "note":
      made.classList.add("at-app");
      what(told.text, "long");
  }
  return made;
}

function labelAnswer(made, row) {
  const { trip } = row;
  if (trip.near === "proxy") made.classList.add("at-proxy");
  if (lookOf(row) === "link") {
    made.append(element("span", "what", isEmptyAnswer(trip) ? "no, that is the latest" : "answered"));
  } else {
    made.append(element("span", "what", trip.status === "gone" ? "the client left" : trip.status || ""));
  }
  if (trip.took !== undefined) made.append(element("span", "ms", milliseconds(trip.took)));
  const most = narrow() && (row.hold || trip.near === "proxy") ? 0 : trip.near === "proxy" ? 1 : undefined;
  if (most !== 0) made.append(...chips(trip.keys, "key", most));
  if (row.hold) {
    made.append(element("span", "ms", row.hold.mode === "http-response" ? "waits for" : "held open"));
    made.append(...chips(row.hold.names.length ? row.hold.names : trip.channels, "channel", 1));
  }
}

function isEmptyAnswer(trip) {
  const last = trip.legs[trip.legs.length - 1];
  const said = Object.fromEntries(last.detail || []);
  return trip.status === "200" && said["content-length"] === "0";
}

function preview(told) {
  const content = (told.detail || []).find(([name]) => name === "content");
  return element("span", "what code dim", content ? content[1].trim() : "");
}

function badgesOf(row) {
  if (row.kind !== "out") return [];
  const { trip } = row;
  const words = { hit: "HIT", stale: "STALE", miss: "MISS", pass: "PASS", link: trip.seen };
  const text = words[lookOf(row)];
  if (!text || trip.near === "cache" || !trip.seen) return [];
  const badge = [element("span", "badge", text)];
  if (text === "HIT" && lookOf(row) === "hit") badge.push(element("span", "after", "app not asked"));
  return badge;
}

function drawArrow(row, lanes) {
  const { near, far } = row;
  const drawn = [];
  switch (row.kind) {
    case "out":
    case "back":
    case "late": {
      const [from, to] = row.kind === "out" ? [near, far] : [far, near];
      const isLeft = X[to] < X[from];
      drawn.push(line(X[from], X[to], LINE_Y, row.kind === "out" ? "arrow" : "arrow back"), head(X[to], LINE_Y, isLeft));
      for (const place of ORDER) {
        if (X[place] > Math.min(X[from], X[to]) && X[place] < Math.max(X[from], X[to])) drawn.push(dot(place));
      }
      if (row.hold && near === "client") drawn.push(toLane(row.hold.lane));
      break;
    }
    case "hold":
      drawn.push(line(X.proxy, X.client, LINE_Y, "arrow back"), head(X.client, LINE_Y, true), toLane(row.hold.lane));
      break;
    case "purge":
      drawn.push(line(X.app, X.cache, LINE_Y, "arrow"), head(X.cache, LINE_Y, true), cross());
      break;
    case "publish":
    case "recover":
      drawn.push(line(X.app, X.proxy, LINE_Y, row.told.text === "marker" ? "arrow faint" : "arrow"), hop(), head(X.proxy, LINE_Y, true));
      break;
    case "push": {
      drawn.push(line(X.proxy, X.client, LINE_Y, "arrow thick"), head(X.client, LINE_Y, true));
      const reached = row.reached.map((hold) => Math.min(hold.lane, maxLanes() - 1));
      if (reached.length) drawn.push(toLane(Math.max(...reached), "arrow thick"));
      for (const lane of new Set(reached)) drawn.push(at(X.client, LINE_Y, shape("circle", { cx: laneX(lane) + 2.5, cy: 0, r: 4, class: "lane-dot" })));
      break;
    }
    case "save":
      drawn.push(cylinder(LINE_Y - 8));
      break;
    case "note":
      drawn.push(at(X.app, LINE_Y - 8, shape("circle", { r: 4, class: "dot" })));
  }
  return drawn;
}

function dot(place) {
  return at(X[place], LINE_Y, shape("circle", { r: 3.5, class: "dot" }));
}
function laneX(lane) {
  return -15 - 8 * Math.min(lane, maxLanes() - 1);
}
function toLane(lane, className = "arrow") {
  return at(X.client, LINE_Y, shape("line", { x1: 0, x2: laneX(lane) + 2.5, y1: 0, y2: 0, class: className }));
}
// What is purged is crossed out.
function cross() {
  return at(X.cache, LINE_Y, shape("path", { d: "M-16-4l8 8m0-8l-8 8", class: "arrow" }));
}
// A publish does not touch the cache.
function hop() {
  return at(
    X.cache, LINE_Y,
    shape("line", { x1: -8, x2: 8, y1: 0, y2: 0, class: "cover" }),
    shape("line", { x1: 0, x2: 0, y1: -6, y2: 6, class: "life" }),
    shape("path", { d: "M-8 0a8 8 0 0 1 16 0", class: "arrow" }),
  );
}
function cylinder(y) {
  return at(
    X.app, y,
    shape("path", { d: "M-8-7v13c0 3 16 3 16 0v-13", class: "arrow filled" }),
    shape("ellipse", { cx: 0, cy: -7, rx: 8, ry: 3, class: "arrow filled" }),
  );
}

function bar(x, offset, width, y1, y2, className) {
  // Its round ends only where it begins and ends: the rest is clipped.
  const top = y1 === 0 ? -4 : y1;
  return at(x, 0, shape("rect", { x: offset, y: top, width, height: Math.max(y2 - top, 0), rx: 2, class: className }));
}
const FULL = 1000; // to be clipped: rows differ in height

// ------------------------------------------------------------------------ all rows

const drawnRows = new Map(); // id: what is on the page, and what it was drawn from
let selected = null;

function withGaps() {
  const all = [];
  let before = null;
  let burst = 0;
  for (const row of rows) {
    const silence = before === null ? 0 : row.at - before.at;
    if (silence > PAUSE_S) all.push({ kind: "gap", id: `gap ${row.id}`, at: row.at, silence });
    if (before === null || silence > BURST_S) burst = row.at;
    row.sinceBurst = row.at - burst;
    row.beginsBurst = row.at === burst;
    const band = bandOf(row);
    row.beginsBand = band && (before === null || bandOf(before) !== band || silence > PAUSE_S);
    all.push(row);
    before = row;
  }
  return all;
}

function redraw() {
  isDue = false;
  const all = withGaps();
  const index = new Map(all.map((row, i) => [row, i]));
  const spans = bars(index, all.length);
  const seen = new Set();
  let before = null;
  all.forEach((row, i) => {
    seen.add(row.id);
    const item = drawRow(row, i, spans);
    const next = before ? before.nextSibling : list.firstChild;
    if (item !== next) list.insertBefore(item, next);
    before = item;
  });
  for (const [id, drawn] of drawnRows) {
    if (seen.has(id)) continue;
    drawn.item.remove();
    drawnRows.delete(id);
  }
  drawNow(spans, all.length);
  $("empty").hidden = rows.length > 0;
  sayAloud();
  if (follows) scroller.scrollTop = scroller.scrollHeight;
  $("newest").hidden = follows;
}

// All bars, as (place or lane, first row, last row): the rest of the rows only clip them.
function bars(index, end) {
  const found = [];
  const done = new Set();
  for (const row of rows) {
    const trip = row.trip;
    if (!trip || done.has(trip)) continue;
    done.add(trip);
    if (trip.out.isGone || (!trip.back && index.get(trip.out) < end - 60)) continue;
    const last = trip.back ? index.get(trip.back) : end;
    found.push({ x: X[trip.far], offset: -3.5, width: 7, from: index.get(trip.out), to: last ?? end, look: `bar of-${fate(trip)}` });
  }
  for (const hold of holds.values()) {
    const from = hold.begin ? index.get(hold.begin) ?? -1 : -1;
    const to = hold.end ? index.get(hold.end) ?? -1 : end + 1;
    if (hold.end && to < 0) continue;
    found.push({ x: X.client, offset: laneX(hold.lane), width: 5, from, to, look: "lane" });
  }
  return found;
}

function spansOf(spans, i) {
  const lines = [];
  for (const { x, offset, width, from, to, look } of spans) {
    if (i < from || i > to) continue;
    lines.push([x, offset, width, i === from ? LINE_Y : 0, i === to ? LINE_Y : FULL, look]);
  }
  return lines;
}

function drawRow(row, i, spans) {
  const known = drawnRows.get(row.id);
  const lines = spansOf(spans, i);
  const label = row.kind === "gap" ? null : labelOf(row);
  const look = JSON.stringify([lines, row.near, row.far, row.kind, lookOfRow(row), label && label.textContent, row.trip && row.trip.seen, row.beginsBand, row.hold && row.hold.lane, gutterText(row), row === selected]);
  if (known && known.look === look) return known.item;
  const item = known ? known.item : element("li");
  const button = known ? known.button : row.kind === "gap" ? null : rowButton(row);
  const draw = element("div", "draw");
  const places = shape("svg", {}, ...ORDER.map(lifeline), ...lines.map((each) => bar(...each)));
  places.style.overflow = "hidden";
  draw.append(places);
  item.className = classOf(row, !known && row.isFresh && !isReplayed);
  row.isFresh = false;
  if (button) {
    draw.append(shape("svg", { class: "lines" }, ...drawArrow(row)), label, ...badgesOf(row));
    button.replaceChildren(gutterOf(row), draw);
    button.setAttribute("aria-label", sentence(row));
    button.setAttribute("aria-pressed", String(row === selected));
    if (!known) item.append(button);
  } else {
    draw.append(element("div", "label", silenceText(row.silence)));
    item.replaceChildren(draw);
    item.setAttribute("role", "presentation");
  }
  drawnRows.set(row.id, { item, button, look });
  return item;
}

function lookOfRow(row) {
  return row.kind === "gap" ? "gap" : lookOf(row);
}
function classOf(row, isFresh) {
  const names = ["row", `of-${lookOfRow(row)}`];
  const band = row.kind === "gap" ? "" : bandOf(row);
  if (band) names.push(`is-${band}`);
  if (row.kind === "release") names.push("small");
  if (row.kind === "gap") names.push("gap");
  if (isFresh) names.push("is-fresh");
  if (row.kind !== "out") names.push("leftward");
  return names.join(" ");
}
function lifeline(place) {
  return shape("line", { x1: `${X[place]}%`, x2: `${X[place]}%`, y1: 0, y2: "100%", class: "life" });
}
function silenceText(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s later`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min later` : `${(seconds / 3600).toFixed(1)} h later`;
}
function gutterText(row) {
  if (row.kind === "gap") return "";
  return row.beginsBurst ? new Date(row.at * 1000).toTimeString().slice(0, 8) : `+${milliseconds(row.sinceBurst)}`;
}
function gutterOf(row) {
  const made = element("div", "gutter");
  if (row.beginsBand) made.append(element("b", "", BANDS[bandOf(row)]));
  made.append(element("span", "", gutterText(row)));
  return made;
}

function drawNow(spans, end) {
  const lanes = spans.filter((each) => each.to > end).map(({ x, offset, width, look }) => bar(x, offset, width, 0, FULL, look));
  const waiting = spans.filter((each) => each.to === end).map(({ x, offset, width, look }) => bar(x, offset, width, 0, 12, look));
  const places = shape("svg", {}, ...ORDER.map(lifeline), ...lanes, ...waiting);
  places.style.overflow = "hidden";
  const draw = element("div", "draw", places);
  const held = [...holds.values()].filter((hold) => !hold.end).length;
  const gutter = element("div", "gutter", held ? `${held} held` : "");
  $("now").replaceChildren(gutter, draw);
}

function sentence(row) {
  const { trip, told } = row;
  if (row.kind === "out") return `${NAMES[trip.near]} asks ${trip.text}, ${trip.seen || "on its way"}`;
  if (row.kind === "late") return `the GRIP proxy answers ${trip.text}: no news in time`;
  if (row.kind === "back") return saidOfTrip(trip) + (row.hold ? `, held open for ${named(row.hold.names)}` : "");
  const where = row.near === row.far ? `at the ${NAMES[row.near]}` : `from the ${NAMES[row.kind === "push" ? "proxy" : row.near]} to the ${NAMES[row.kind === "push" ? "client" : row.far]}`;
  return `${row.kind} ${named(told.names)} ${where}${told.count ? `, ${told.count}` : ""}`;
}

// ------------------------------------------------------------------------ what is chosen

function rowButton(row) {
  const button = element("button");
  button.type = "button";
  button.addEventListener("click", () => select(row === selected ? null : row));
  button.addEventListener("focus", () => button.matches(":focus-visible") && select(row));
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && !selected && inspect(row));
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !selected && inspect(null));
  return button;
}

list.addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key === "Escape") return select(null);
  if (!(event.key in steps)) return;
  const buttons = [...list.querySelectorAll("button")];
  const next = buttons[buttons.indexOf(document.activeElement) + steps[event.key]];
  if (next) next.focus();
  event.preventDefault();
});

function select(row) {
  selected = row;
  inspect(row);
  schedule();
}

function inspect(row) {
  const isWide = !matchMedia("(max-width: 62rem)").matches;
  $("inspector").hidden = row === null;
  $("guide").hidden = row !== null && isWide;
  $("close").hidden = selected === null;
  if (row) $("found").replaceChildren(...foundOf(row));
}

const TITLES = {
  hit: "Answered by the cache", stale: "Answered with an old copy", miss: "Answered by the app", pass: "Passed on to the app",
  link: "Has anything been missed?", wait: "On its way", error: "Not answered", hold: "A client is held", late: "A long-poll without news", release: "Connection closed",
  save: "A change was saved", purge: "Purge: app → cache", publish: "Publish: app → GRIP proxy", push: "Push: GRIP proxy → clients", note: "Note",
};

function foundOf(row) {
  const { trip, told } = row;
  const look = ["release", "late"].includes(row.kind) ? row.kind : lookOf(row);
  const made = [element("h2", "", TITLES[look] || row.kind)];
  const key = told && (told.text === "marker" || told.text === "missed") ? told.text : row.kind === "recover" ? "recover" : look;
  made.push(element("p", "", WHY[key] || ""));
  if (row.hold) made.push(element("p", "", WHY.hold));
  if (trip) made.push(...legsOf(row).flatMap(legOf));
  if (row.hold) made.push(...tableOf("held", "", row.hold.told.detail));
  for (const told of row.batch || (row.told ? [row.told] : [])) {
    made.push(...tableOf(told.names ? `${counted(told.names.length + (told.more || 0), "name")}` : "said", timeOf(told.at), [
      ...(told.names || []).map((name) => [row.kind === "purge" ? "key" : row.kind === "save" ? "topic" : "channel", name]),
      ...(told.more ? [["and", `${told.more} more`]] : []),
      ...(told.count ? [[row.kind === "purge" ? "copies dropped" : row.kind === "publish" ? "clients subscribed" : "clients", String(told.count)]] : []),
      ...(told.detail || []),
    ]));
  }
  return made;
}

// What the line shows first.
function legsOf({ kind, trip }) {
  const first = kind === "out" ? "request" : "answer";
  return [...trip.legs.filter((leg) => leg.kind === first), ...trip.legs.filter((leg) => leg.kind !== first)];
}

function legOf(leg) {
  const title = `${NAMES[leg.source]} → ${NAMES[leg.target]}`;
  const right = leg.kind === "request" ? timeOf(leg.at) : `${leg.text}, ${milliseconds(leg.took_s)}`;
  const first = leg.kind === "request" ? [["request", leg.text]] : [];
  return tableOf(title, right, [...first, ...(leg.detail || [])]);
}

const TOLD = /^(surrogate|grip-|xkey|x-cache|etag|cache-control|key$|topic$|channel$|id$|prev-id$|request$)/;

function tableOf(title, right, lines) {
  const heading = element("h3", "", title, element("span", "", right));
  const body = (lines || []).map(([name, value]) => {
    const row = element("tr", TOLD.test(name) ? "is-told" : "", element("th", "", name), element("td", "", value));
    row.firstChild.scope = "row";
    return row;
  });
  return [heading, element("table", "", element("tbody", "", ...body))];
}

function timeOf(seconds) {
  const when = new Date(seconds * 1000);
  return `${when.toTimeString().slice(0, 8)}.${String(when.getMilliseconds()).padStart(3, "0")}`;
}

// ------------------------------------------------------------------------ as text

function sayAloud() {
  if (saidLately.length === 0) return;
  const sentences = $("sentences");
  sentences.append(...saidLately.splice(0).slice(-MAX_SENTENCES).map((text) => element("li", "", text)));
  while (sentences.childElementCount > MAX_SENTENCES) sentences.firstChild.remove();
}

// ------------------------------------------------------------------------ what comes

let isPaused = false;
let waiting = [];
let isDue = false;
let follows = true; // until somebody scrolls up

function schedule() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(redraw);
}

function take(happening) {
  if (isPaused) {
    waiting.push(happening);
    if (waiting.length > MAX_WAITING) waiting.shift();
    return;
  }
  const act = TAKEN[happening.kind];
  if (act) act(happening);
  schedule();
}

function showTotals(totals) {
  const asked = totals.hits + totals.misses;
  const texts = {
    requests: totals.requests, hits: totals.hits, held: totals.open, saves: totals.saves, purges: totals.purges,
    publishes: totals.publishes, pushes: totals.pushes, ratio: asked ? `${Math.round((100 * totals.hits) / asked)} %` : "–",
  };
  for (const [id, text] of Object.entries(texts)) $(id).textContent = typeof text === "number" ? text.toLocaleString("en") : text;
  const open = $("open");
  if (/^http:\/\/127\.0\.0\.1:\d+$/.test(totals.url)) open.href = totals.url;
  open.hidden = !open.href;
}

function showState(state) {
  const shown = isPaused ? "paused" : state;
  $("state").dataset.state = shown;
  $("state").textContent = shown;
}

let connection = "connecting";

function connect() {
  const source = new EventSource("timeline/events");
  source.addEventListener("begin", () => {
    forget();
    waiting = [];
    isReplayed = true;
    select(null);
  });
  source.addEventListener("message", (event) => take(JSON.parse(event.data)));
  source.addEventListener("state", (event) => {
    showTotals(JSON.parse(event.data));
    if (isReplayed) redraw();
    isReplayed = false;
  });
  source.addEventListener("open", () => showState((connection = "live")));
  source.addEventListener("error", () => {
    showState((connection = "reconnecting"));
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  $("pause").textContent = isPaused ? "Resume" : "Pause";
  showState(connection);
  if (!isPaused) for (const happening of waiting.splice(0)) take(happening);
});
$("clear").addEventListener("click", clearRows);
$("close").addEventListener("click", () => select(null));
$("newest").addEventListener("click", () => {
  follows = true;
  schedule();
});
for (const event of ["wheel", "touchmove", "keydown", "scrollend"]) {
  scroller.addEventListener(event, () => requestAnimationFrame(noteWhereOneLooks), { passive: true });
}
function noteWhereOneLooks() {
  follows = isAtEnd();
  $("newest").hidden = follows;
}

function isAtEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}

new ResizeObserver(() => {
  X.client = narrow() ? 15 : 17;
  for (const drawn of drawnRows.values()) drawn.look = "";
  schedule();
}).observe(scroller);

// ------------------------------------------------------------------------ the legend

const SAMPLES = {
  hit: ["hit", () => [sampleLine(4, 60, 7), sampleHead(58, 7), sampleBar(58, 7, 23), sampleLine(58, 4, 23, "arrow back"), sampleHead(4, 23, true)]],
  miss: ["miss", () => [sampleLine(4, 60, 7), sampleDot(32, 7), sampleHead(58, 7), sampleBar(58, 7, 23), sampleLine(58, 4, 23, "arrow back"), sampleHead(4, 23, true), sampleDot(32, 23)]],
  hold: ["hold", () => [shape("rect", { x: 28, y: 0, width: 5, height: 30, rx: 2, class: "lane" }), sampleLine(62, 33, 4, "arrow back"), shape("circle", { cx: 30.5, cy: 17, r: 4, class: "lane-dot" })]],
  save: ["save", () => [shape("path", { d: "M24 9v13c0 3 16 3 16 0v-13", class: "arrow filled" }), shape("ellipse", { cx: 32, cy: 9, rx: 8, ry: 3, class: "arrow filled" })]],
  purge: ["purge", () => [sampleLine(62, 14, 15), sampleHead(14, 15, true), shape("path", { d: "M2 11l8 8m0-8l-8 8", class: "arrow" })]],
  publish: ["publish", () => [shape("line", { x1: 34, x2: 34, y1: 0, y2: 30, class: "life" }), sampleLine(62, 42, 15), sampleLine(26, 4, 15), shape("path", { d: "M26 15a8 8 0 0 1 16 0", class: "arrow" }), sampleHead(4, 15, true)]],
  push: ["push", () => [sampleLine(62, 8, 15, "arrow thick"), ...[8, 18, 28].map((x) => shape("rect", { x: x - 2.5, y: 0, width: 5, height: 30, rx: 2, class: "lane" })), ...[8, 18, 28].map((x) => shape("circle", { cx: x, cy: 15, r: 4, class: "lane-dot" }))]],
  link: ["link", () => [sampleLine(4, 60, 7), sampleHead(58, 7), sampleBar(58, 7, 23), sampleLine(58, 4, 23, "arrow back"), sampleHead(4, 23, true)]],
};
function sampleLine(x1, x2, y, className = "arrow") {
  return shape("line", { x1, x2, y1: y, y2: y, class: className });
}
function sampleHead(x, y, isLeft = false) {
  return shape("path", { d: isLeft ? `M${x - 2} ${y}l9-5v10z` : `M${x - 1} ${y}l-9-5v10z`, class: "head" });
}
function sampleBar(x, y1, y2) {
  return shape("rect", { x: x - 2, y: y1 - 2, width: 6, height: y2 - y1 + 4, rx: 2, class: "bar" });
}
function sampleDot(x, y) {
  return shape("circle", { cx: x, cy: y, r: 3.5, class: "dot" });
}
for (const svg of document.querySelectorAll("[data-sample]")) {
  const [look, draw] = SAMPLES[svg.dataset.sample];
  svg.setAttribute("viewBox", "0 0 66 30");
  svg.setAttribute("class", `sample of-${look}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(...draw());
}

redraw();
connect();
