"use strict";
// What pages do beside being read: they follow events, and ask the interface to change something. No library.

const root = document.body.dataset.root;
const api = `${root}/api/v1`;
const page = document.body.dataset.page;
const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
document.documentElement.classList.add("scripted");

function make(name, attributes = {}, ...children) {
  const space = ["svg", "rect", "line", "circle"].includes(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const node = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function put(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

let toastTimer = 0;
function toast(text) {
  put($("#toast"), text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => put($("#toast"), ""), 8000);
}

async function ask(path, options = {}, base = api) {
  const answer = await fetch(base + path, options);
  if (answer.status === 401) location.assign(`${root}/login?next=${encodeURIComponent(location.pathname.slice(root.length) + location.search)}`);
  const told = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.detail), { mistakes: told.mistakes, status: answer.status });
  return told;
}

const change = (path, body = {}) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// A browser has six connections to a server for all its windows: only those that can be seen follow.
function follow(path, handlers) {
  let source = null;
  let last = "";
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(`${api}${path}?last=${encodeURIComponent(last)}`);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    }
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}

// Submissions

const verbs = { pause: "Pause", resume: "Resume", cancel: "Cancel" };
function actionsOf(entry) {
  const wishes = [];
  if (["waiting", "running"].includes(entry.state) && !entry.wish) wishes.push("pause");
  if (["paused", "cancelled", "failed"].includes(entry.state) || entry.wish) wishes.push("resume");
  if (["waiting", "running", "paused"].includes(entry.state) && entry.wish !== "cancel") wishes.push("cancel");
  const buttons = wishes.map((wish) => {
    const button = make("button", { type: "button", "data-do": wish, "aria-label": `${verbs[wish]} ${entry.study}` }, verbs[wish]);
    if (wish === "cancel") button.className = "danger";
    return button;
  });
  return make("span", { class: "actions needs-script", "data-id": entry.id }, ...buttons);
}

// As addresses.segment: what a server would take for something else is quoted twice.
function segment(name) {
  const once = encodeURIComponent(name).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  if (!/[/%\\]/.test(name) && /[^.]/.test(name)) return once;
  return encodeURIComponent(/[^.]/.test(name) ? once : once.replaceAll(".", "%2E"));
}

function entryOf(entry, place, count) {
  const about = make("span", { class: "soft small" }, make("a", { href: `${root}/queue/${entry.id}` }, entry.id));
  if (entry.by) about.append(` · by ${entry.by}`);
  about.append(" · ", make("time", { datetime: entry.submitted }, `${entry.submitted.slice(0, 16).replace("T", " ")} UTC`));
  if (entry.priority) about.append(` · priority ${entry.priority}`);
  if (entry.after.length && entry.state === "waiting") about.append(` · after ${entry.after.join(", ")}`);
  const badge = make("span", { class: `badge ${entry.state}` }, entry.wish ? `${entry.wish} asked for` : entry.state);
  const what = make("div", { class: "what" }, make("a", { class: "name", href: `${root}/studies/${segment(entry.study)}` }, entry.study), badge, about);
  if (entry.reason) what.append(make("span", { class: "reason small" }, entry.reason));
  const actions = actionsOf(entry);
  if (count > 1) {
    for (const [name, sign, possible] of [["up", "\u2191", place > 0], ["down", "\u2193", place < count - 1]]) {
      const button = make("button", { type: "button", "data-move": name, "aria-label": `Move ${entry.study} ${name}` }, sign);
      button.disabled = !possible;
      actions.prepend(button);
      if (name === "down") actions.prepend($('[data-move="up"]', actions));
    }
  }
  return make("li", { class: "entry", "data-entry": entry.id }, what, actions);
}

let waiting = [];
let isAwaiting = false;
function listOf(title, id, entries, movable = false) {
  const list = make("ol", { class: "entries" }, ...entries.map((entry, place) => entryOf(entry, place, movable ? entries.length : 0)));
  return make("section", { "aria-labelledby": id }, make("h2", { id }, title), list);
}

// Lists are made anew; whoever was on a button of one is put back on it.
function keepFocus(work) {
  const focused = document.activeElement;
  const entry = focused && focused.closest ? focused.closest("[data-id]") : null;
  const key = entry && [entry.dataset.id, focused.dataset.do || focused.dataset.move];
  work();
  if (!key) return;
  const actions = $(`[data-id="${CSS.escape(key[0])}"]`);
  const button = actions && ($(`[data-do="${key[1]}"]`, actions) || $(`[data-move="${key[1]}"]:not([disabled])`, actions) || $("button:not([disabled])", actions));
  if (button) button.focus();
}

function showQueue(entries) {
  const running = entries.filter((entry) => entry.state === "running");
  waiting = entries.filter((entry) => ["waiting", "paused"].includes(entry.state));
  const ended = entries.filter((entry) => ["done", "failed", "cancelled"].includes(entry.state));
  keepFocus(() => {
    const parts = [];
    if (running.length) parts.push(listOf("Running", "running", running));
    if (waiting.length) parts.push(listOf("Waiting, in this order", "waiting", waiting, true));
    if (!parts.length && $("#nothing")) parts.push($("#nothing").parentNode);
    if (!parts.length) parts.push(make("section", { "aria-labelledby": "nothing" }, make("h2", { id: "nothing" }, "Nothing is running or waiting")));
    $("#queue").replaceChildren(...parts);
    $("#ended").replaceChildren(...(ended.length ? [listOf("Ended submissions", "ended-title", ended.slice(0, 20))] : []));
  });
  put($("#line"), `${running.length} running, ${waiting.length} waiting`);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest ? event.target.closest("[data-do], [data-move]") : null;
  const actions = button && button.closest("[data-id]");
  if (!actions) return;
  const id = actions.dataset.id;
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true"; // and not disabled, which would take the focus away
  try {
    if (button.dataset.do) {
      const entry = await change(`/queue/${id}/${button.dataset.do}`);
      toast(`${entry.study}: ${entry.wish ? `${entry.wish} asked for` : entry.state}`);
      if (page !== "queue") showSubmission(entry);
    } else {
      const place = waiting.findIndex((entry) => entry.id === id);
      const other = waiting[place + (button.dataset.move === "up" ? -1 : 1)];
      if (other) await change(`/queue/${id}/move`, button.dataset.move === "up" ? { before: other.id } : { after: other.id });
    }
  } catch (error) {
    toast(error.message);
  }
  button.ariaDisabled = "false";
});

function showSubmission(entry) {
  const place = $("#submission");
  if (place) keepFocus(() => place.replaceChildren(...(entry && ["waiting", "running", "paused"].includes(entry.state) ? [actionsOf(entry)] : [])));
  if (entry && $(`#queue [data-entry="${CSS.escape(entry.id)}"]`)) keepFocus(() => $("#queue").replaceChildren(entryOf(entry, 0, 0)));
}

// A study

const states = { running: "running", finished: "all runs ended", idle: "not run now" };
const logOf = (cell, seed) => `${root}/studies/${document.body.dataset.study}/log?${new URLSearchParams({ cell, seed })}`;

function fillField(field, [status, text], cell, seed) {
  const shade = status === "finished" ? (field.className.match(/\bs\d\b/) || [""])[0] : "";
  field.className = `${status} ${shade}`.trim();
  if (field.textContent === text && status !== "not_run") return;
  field.replaceChildren(status === "not_run" ? make("span", { class: "hush" }, text) : make("a", { href: logOf(cell, seed) }, text));
}

let spoken = "";
let spokenAt = 0;
function showProgress(progress) {
  const bar = $("#overall");
  bar.max = progress.total || 1;
  bar.value = progress.ended;
  const word = `${progress.state} ${progress.ended} ${progress.counts.length}`;
  // Somebody who listens is told of each run that has ended, and not of every second.
  if (word !== spoken || Date.now() - spokenAt > 15000) {
    put($("#line"), progress.line);
    spoken = word;
    spokenAt = Date.now();
  }
  const badge = make("span", { class: `badge ${progress.state}` }, states[progress.state]);
  if ($("#state").textContent !== badge.textContent) $("#state").replaceChildren(badge);
  $("#now").hidden = !progress.now.length;
  const list = $("#now ul");
  list.replaceChildren(...progress.now.map((now) => {
    const cut = now.run.lastIndexOf("/");
    return make("li", {},
      make("a", { href: logOf(now.run.slice(0, cut), now.run.slice(cut + 1)) }, now.run),
      make("progress", { max: now.epochs, value: now.epoch, "aria-label": now.run }),
      make("span", { class: "value" }, now.left ? `${now.text}, ${now.left}` : now.text));
  }), ...(progress.more ? [make("li", { class: "soft" }, `and ${progress.more} more`)] : []));
  document.title = `${progress.state === "running" ? `${Math.floor((100 * progress.ended) / (progress.total || 1))} % ` : ""}${$("h1").textContent} · ablate`;
}

function showStatus(status) {
  const rows = new Map($$("#grid tbody tr").map((row) => [row.dataset.cell, row]));
  if (status.whole && !$(".parts") && (Object.keys(status.shown.fields).length !== rows.size || Object.keys(status.shown.fields).some((cell) => !rows.has(cell)))) {
    location.reload(); // a search has found other cells, or the study is another one
    return;
  }
  for (const [cell, fields] of Object.entries(status.shown.fields)) {
    const row = rows.get(cell);
    if (!row) continue;
    for (const [seed, field] of Object.entries(fields)) {
      const place = $(`td[data-seed="${seed}"]`, row);
      if (place) fillField(place, field, cell, seed);
    }
  }
  showProgress(status.shown.progress);
  $("#broken").hidden = !status.broken.length;
  $("#broken ul").replaceChildren(...status.broken.slice(0, 20).map((one) => {
    const cut = one.run.lastIndexOf("/");
    return make("li", {}, make("a", { href: logOf(one.run.slice(0, cut), one.run.slice(cut + 1)) }, one.run), ` ${one.status.replace("_", " ")}: ${one.reason}`);
  }), ...(status.broken.length > 20 ? [make("li", { class: "soft" }, `and ${status.broken.length - 20} more`)] : []));
}

const titles = { main: "Main effects, the best first", interaction: "Interactions", cell: "Cells against the baseline" };

function rowOf(row, drawn) {
  const svg = make("svg", { width: "100%", height: 26, role: "img", "aria-label": row.words });
  if (drawn.band) svg.append(make("rect", { class: "band", x: `${drawn.band[0]}%`, width: `${drawn.band[1]}%`, y: 0, height: 26 }));
  svg.append(make("line", { class: "zero", x1: `${drawn.zero}%`, x2: `${drawn.zero}%`, y1: 0, y2: 26 }));
  if (row.low !== null && row.high !== null) svg.append(make("rect", { class: `interval ${row.verdict}`, x: `${row.low}%`, width: `${Math.max(row.high - row.low, 0.3)}%`, y: 7, height: 6, rx: 3 }));
  if (row.effect !== null) svg.append(make("circle", { class: `point ${row.verdict}`, cx: `${row.effect}%`, cy: 10, r: 5 }));
  for (const dot of row.dots) svg.append(make("circle", { class: "dot", cx: `${dot}%`, cy: 20.5, r: 2.5 }));
  const verdict = make("td", { class: "verdict" }, make("span", { class: `mark ${row.verdict.replaceAll(" ", "-")}` }, row.verdict));
  if (/^(undecided|unstable):/.test(row.words)) verdict.append(make("span", { class: "note" }, row.words.slice(row.words.indexOf(": ") + 2)));
  return make("tr", {}, make("th", { scope: "row" }, row.change), make("td", { class: "draw" }, svg), make("td", { class: "number" }, row.numbers), verdict);
}

function forestOf(drawn) {
  const note = drawn.kind === "main" ? `The point is the effect, the thick line its interval, each dot a seed${drawn.band ? "; in the shaded band an effect is too small to be worth having." : "."}` : "";
  const head = make("tr", {}, ...["change", "effect and interval", "numbers", "verdict"].map((text, place) => make("th", { scope: "col", class: place === 2 ? "number" : null }, text)));
  const table = make("table", { class: "effects", "data-kind": drawn.kind },
    make("caption", {}, titles[drawn.kind], make("span", { class: "note" }, note)), make("thead", {}, head), make("tbody", {}, ...drawn.rows.map((row) => rowOf(row, drawn))));
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": titles[drawn.kind] }, table);
  if (drawn.kind === "main") return scroll;
  return make("details", { "data-kind": drawn.kind }, make("summary", {}, `${titles[drawn.kind]} (${drawn.rows.length})`), scroll);
}

// Rows that are there stay, so that an interval narrows before the eye instead of being another one.
function mendForest(there, drawn) {
  const rows = new Map($$("tbody tr", there).map((row) => [$("th", row).textContent, row]));
  const body = $("tbody", there);
  const wanted = drawn.rows.map((row) => {
    const fresh = rowOf(row, drawn);
    const old = rows.get(row.change);
    if (!old) return fresh;
    const [before, after] = [$("svg", old), $("svg", fresh)];
    const same = [...before.children].map((node) => node.tagName).join() === [...after.children].map((node) => node.tagName).join();
    if (same) {
      [...after.children].forEach((node, place) => [...node.attributes].forEach((attribute) => before.children[place].setAttribute(attribute.name, attribute.value)));
      before.setAttribute("aria-label", row.words);
    } else before.replaceWith(after);
    put($(".number", old), row.numbers);
    $(".verdict", old).replaceWith($(".verdict", fresh));
    return old;
  });
  if (wanted.some((row, place) => body.children[place] !== row) || body.children.length !== wanted.length) body.replaceChildren(...wanted);
}

function showVerdicts(told) {
  const { headline, drawn, claims } = told.shown;
  const sentences = $$("#headline p").map((node) => node.textContent);
  if (sentences.join("\n") !== headline.join("\n")) $("#headline").replaceChildren(...headline.map((sentence) => make("p", {}, sentence)));
  $("#effects").hidden = !drawn.length;
  const open = $$("#forests details[open]").map((node) => node.dataset.kind);
  const there = new Map($$("#forests > *").map((node) => [node.dataset.kind || "main", node]));
  $("#forests").replaceChildren(...drawn.map((one) => {
    const old = there.get(one.kind);
    if (old) {
      mendForest(old, one);
      return old;
    }
    const fresh = forestOf(one);
    if (open.includes(one.kind)) fresh.open = true;
    return fresh;
  }));
  $$("#claims li").forEach((node, place) => {
    if (claims[place]) $(".mark", node).replaceWith(make("span", { class: `mark ${claims[place].verdict.replaceAll(" ", "-")}` }, claims[place].verdict));
  });
  for (const row of $$("#grid tbody tr")) {
    const shades = told.shades[row.dataset.cell] || {};
    for (const field of $$("td", row)) {
      const shade = shades[field.dataset.seed];
      const base = field.className.replace(/\s*\bs\d\b/, "");
      field.className = shade === undefined || !field.classList.contains("finished") ? base : `${base} s${shade}`;
    }
  }
}

// A new study

function showPlan(plan, sees) {
  const time = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
  const facts = [
    ["study", plan.study],
    ["cells", `${plan.cells.length}${plan.evaluation_only_cells ? `, ${plan.evaluation_only_cells} of them need no training of their own` : ""}`],
    ["runs", `${plan.runs} under ${plan.seeds.length} ${plan.seeds.length === 1 ? "seed" : "seeds"}`],
    ["to train", `${plan.to_train} ${plan.to_train === 1 ? "job" : "jobs"}${plan.done ? `; ${plan.done} are done already` : ""}`],
    ["time", plan.seconds !== null ? `about ${time(plan.seconds)} (${plan.seconds_basis})` : plan.to_train ? "not known before the first job has ended" : "none"],
  ];
  if (plan.detectable_effect !== null) {
    facts.push(["it can see", plan.sees_nothing ? "nothing under so few seeds" : `effects of about ${sees} (${plan.detectable_effect_basis})`]);
    if (plan.seeds_for_min_effect !== null && plan.seeds_for_min_effect > plan.seeds.length) facts.push(["min_effect", `would take about ${plan.seeds_for_min_effect} seeds`]);
  }
  for (const excluded of plan.excluded) facts.push(["excluded", `${excluded.cells.length}: ${excluded.why}`]);
  $("#plan").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  put($("#notes"), plan.notes.join(" "));
}

function showMistakes(mistakes) {
  $("#mistakes").replaceChildren(...mistakes.map((mistake) => {
    const [, place, sentence] = mistake.match(/^(?:the study: )?(?:([\w.[\]"-]+): )?([\s\S]*)$/);
    return make("li", {}, ...(place ? [make("strong", {}, place)] : []), sentence);
  }));
}

function newStudy() {
  const form = $("#new");
  const key = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  let timer = 0;
  let count = 0;
  const query = () => new URLSearchParams($("#sets").value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => ["set", line]));
  const look = async () => {
    const number = ++count;
    put($("#verdict-line"), "Checking ...");
    let told;
    try {
      const options = { method: "POST", headers: { "Content-Type": "application/toml" }, body: $("#text").value };
      told = await ask(`/new/check?${query()}`, options, root);
    } catch (error) {
      told = { plan: null, mistakes: error.mistakes || [error.message] };
    }
    if (number !== count) return;
    showMistakes(told.mistakes);
    if (told.plan) {
      showPlan(told.plan, told.sees);
      put($("#verdict-line"), "The file is right. This is what it would do:");
    } else {
      $("#plan").replaceChildren();
      put($("#notes"), "");
      put($("#verdict-line"), told.mistakes.length === 1 ? "One mistake:" : `${told.mistakes.length} mistakes:`);
    }
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(look, 400);
  };
  $("#text").addEventListener("input", later);
  $("#sets").addEventListener("input", later);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    $("#submit").disabled = true;
    put($("#refused"), "");
    const asked = query();
    asked.set("priority", $("#priority").value || "0");
    if ($("#by").value.trim()) asked.set("by", $("#by").value.trim());
    if ($("#after") && $("#after").value) asked.set("after", $("#after").value);
    if ($("#replace").checked) asked.set("replace", "true");
    try {
      const body = $("#text").value;
      const digest = [...body + asked].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);
      const headers = { "Content-Type": "application/toml", "Idempotency-Key": `${key}-${digest}` };
      const entry = await ask(`/queue?${asked}`, { method: "POST", headers, body });
      location.assign(`${root}/studies/${segment(entry.study)}`);
    } catch (error) {
      put($("#refused"), error.message);
      $("#submit").disabled = false;
    }
  });
  look();
}

// A log

async function followLog() {
  const { job } = document.body.dataset;
  let offset = Number(document.body.dataset.offset);
  let ended = document.body.dataset.ended === "true";
  const log = $("#log");
  log.scrollTop = log.scrollHeight;
  while (!ended) {
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      continue;
    }
    try {
      const part = await ask(`/logs?${new URLSearchParams({ job, offset, wait: 10 })}`);
      const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      if (part.text) log.append(part.text);
      if (isAtEnd) log.scrollTop = log.scrollHeight;
      ({ next: offset, ended } = part);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
  put($("#line"), "The job has ended.");
}

if (page === "queue") follow("/queue/events", { queue: showQueue });
if (page === "study") follow(`/studies/${document.body.dataset.study}/events`, { status: showStatus, verdicts: showVerdicts, submission: showSubmission });
if (page === "waiting" || page === "entry") {
  follow("/queue/events", {
    queue: async (entries) => {
      const entry = entries.find((one) => one.id === document.body.dataset.entryId);
      if (entry) showSubmission(entry);
      if (page === "waiting" && entry && entry.state === "running") awaitStudy();
    },
  });
}
if (page === "new") newStudy();
if (page === "log") followLog();


async function awaitStudy() {
  if (isAwaiting) return;
  isAwaiting = true;
  put($("#line"), "Starting.");
  for (;;) {
    const studies = await ask("/studies").catch(() => []);
    if (studies.some((one) => segment(one.study) === document.body.dataset.study)) location.reload();
    await new Promise((resolve) => setTimeout(resolve, 700));
  }
}
