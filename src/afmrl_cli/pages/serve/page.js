// The page of `afmrl serve`. No library, no build step. What comes from the shop is only ever set as text.

const byId = (id) => document.getElementById(id);
const LONG_SIDE = 2048, LARGE_FILE = 4_000_000, POLL_MS = 10_000, TRIES = 3;
const state = { text: "", photo: null, like: null, change: "", filters: new Map(), bounds: new Map(), k: 0 };
let page = { language: "en", words: {}, k: 10, most_results: 100, beside: false };
let version = null, running = null, searched = null;

// Words

function say(name, values = {}) {
  return (page.words[name] ?? name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}
const number = (value, digits = 0) =>
  new Intl.NumberFormat(page.language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
const share = (value) => new Intl.NumberFormat(page.language, { style: "percent" }).format(value);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

// Requests

class Refused extends Error {
  constructor(status, message, hint) {
    super(hint ? `${message}: ${hint}` : message);
    this.status = status;
  }
}

async function ask(path, options = {}, tries = TRIES) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, say("offline"), "");
  }
  if (answer.status === 503 && tries > 1 && Number(answer.headers.get("retry-after")) <= 2) {
    notice(say("busy"));
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get("retry-after"))));
    options.signal?.throwIfAborted();
    return ask(path, options, tries - 1);
  }
  if (answer.status === 401) location.assign("/login");
  const content = await answer.json().catch(() => null);
  if (!answer.ok) {
    const error = content?.error ?? { message: say("offline"), hint: "" };
    throw new Refused(answer.status, error.message, error.hint);
  }
  return content;
}

function body(query, more = {}) {
  const fields = { ...more };
  if (query.text) fields.text = query.text;
  if (query.like) fields.like = query.like.id;
  if (query.change) fields.change = query.change;
  if (query.filters?.length) fields.filters = query.filters;
  if (query.k) fields.k = query.k;
  if (!query.photo) {
    return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fields) };
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) form.append(name, each === null ? "null" : String(each));
  }
  form.append("photo", query.photo.file, "photo");
  return { method: "POST", body: form };
}

// What is searched for

function written() {
  const filters = [...state.filters].flatMap(([key, values]) => [...values].map((value) => `${key}=${value}`));
  for (const [bound, value] of state.bounds) filters.push(bound + value);
  const change = state.like || state.photo ? state.change.trim() : "";
  const text = change || state.like ? "" : state.text.trim();
  return { text, photo: state.photo, like: state.like, change, filters, k: state.k };
}

function toAddress(query) {
  const values = new URLSearchParams();
  if (query.text) values.set("q", query.text);
  if (query.like) values.set("like", query.like.id);
  if (query.change) values.set("change", query.change);
  for (const filter of query.filters) values.append("filter", filter);
  const address = values.size ? `/?${values}` : "/";
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
}

function fromAddress() {
  const values = new URLSearchParams(location.search);
  state.text = values.get("q") ?? "";
  state.like = values.get("like") ? { id: values.get("like"), title: values.get("like"), photo: "" } : null;
  state.change = values.get("change") ?? "";
  state.filters = new Map();
  state.bounds = new Map(); // such as "price>=": "20"
  for (const filter of values.getAll("filter")) {
    const [, key, sign, value] = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/s.exec(filter) ?? [];
    if (sign === "=") chosen(key).add(value);
    else if (sign) state.bounds.set(key + sign, value);
  }
  byId("text").value = state.text;
  byId("change").value = state.change;
}

function chosen(key) {
  if (!state.filters.has(key)) state.filters.set(key, new Set());
  return state.filters.get(key);
}

function showReference() {
  const chip = byId("chip"), there = state.photo || state.like;
  byId("reference").hidden = !there;
  chip.replaceChildren();
  if (!there) return;
  const remove = (label) =>
    el("button", { type: "button", class: "plain", "aria-label": label, onclick: () => withoutReference() }, "✕");
  if (state.photo) {
    chip.append(el("img", { src: state.photo.url, alt: say("photo_alt"), id: "preview" }), remove(say("photo_remove")));
  } else {
    const words = { title: state.like.title };
    if (state.like.photo) chip.append(el("img", { src: state.like.photo, alt: "" }));
    chip.append(el("span", {}, say("like_chip", words)), remove(say("like_remove", words)));
  }
}

function withoutReference() {
  setPhoto(null);
  state.like = null;
  state.change = byId("change").value = "";
  showReference();
  byId("text").focus();
  if (state.text.trim()) search();
  else clearResults();
}

function setPhoto(photo) {
  if (state.photo) URL.revokeObjectURL(state.photo.url);
  state.photo = photo;
}

async function takePhoto(file) {
  if (!file || document.body.classList.contains("no-photos")) return;
  const small = await smaller(file);
  setPhoto({ file: small, url: URL.createObjectURL(small) });
  state.like = null;
  showReference();
  search();
}

// A large photo is made smaller here: the models read fewer pixels, and what a camera notes of the place stays here.
async function smaller(file) {
  try {
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = LONG_SIDE / Math.max(picture.width, picture.height);
    if (scale >= 1 && file.size <= LARGE_FILE) return file;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.width * Math.min(1, scale));
    canvas.height = Math.round(picture.height * Math.min(1, scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob((made) => resolve(made ?? file), "image/jpeg", 0.92));
  } catch {
    return file; // no photo that this browser reads: the service says what it is
  }
}

// Results

function clearResults() {
  running?.abort();
  searched = null;
  byId("lists").replaceChildren();
  byId("notes").replaceChildren();
  byId("count").textContent = "";
  byId("more").hidden = true;
}

async function search({ keep = false } = {}) {
  if (!keep) state.k = page.k;
  const query = written();
  if (!(query.text || query.photo || query.like)) return clearResults();
  running?.abort();
  const control = (running = new AbortController());
  document.body.classList.add("busy");
  byId("count").textContent = say("searching");
  if (!query.photo) toAddress(query);
  showFilters();
  const began = performance.now();
  try {
    const found = await ask("/search", { ...body(query, page.beside ? { beside: true } : {}), signal: control.signal });
    if (control.signal.aborted) return;
    const marks = await ask("/marks/of", body(query));
    if (control.signal.aborted) return;
    searched = query;
    notice("");
    showFound(found, marks.marks, (performance.now() - began) / 1000);
  } catch (error) {
    if (error.name === "AbortError" || control.signal.aborted) return;
    clearResults();
    showNotes([error.message], true);
  } finally {
    if (running === control) document.body.classList.remove("busy");
  }
}

function showNotes(notes, bad = false) {
  byId("notes").className = bad ? "notes bad" : "notes";
  byId("notes").setAttribute("role", bad ? "alert" : "list");
  byId("notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
}

function showFound(found, marks, seconds) {
  const liked = found.question.liked, hits = found.hits;
  if (liked && state.like) {
    state.like = { id: liked.id, title: liked.title || liked.id, photo: liked.images[0] ?? "" };
    showReference();
  }
  const words = { count: number(hits.length), seconds: number(seconds, 2) };
  byId("count").textContent = say(hits.length === 1 ? "one_result" : hits.length ? "results" : "no_results", words);
  showNotes(found.notes);
  const sides = found.beside ? [found, found.beside] : [found];
  byId("lists").className = sides.length > 1 ? "two" : "";
  byId("lists").replaceChildren(...sides.map((side) => {
    const cards = el("ol", { class: "cards" }, side.hits.map((hit) => card(hit, marks)));
    if (sides.length === 1) return cards;
    return el("section", { "aria-label": side.embedder }, el("h2", { class: "side" }, `${side.embedder} `, el("span", { class: "soft" })), cards);
  }));
  showTallies();
  byId("more").hidden = hits.length < state.k || state.k >= page.most_results;
}

function photoOf(title, address) {
  const picture = el("div", { class: "picture" }, address ? "" : say("no_photo"));
  if (address) {
    const image = el("img", { src: address, alt: say("photo_of", { title }), loading: "lazy" });
    image.addEventListener("error", () => picture.replaceChildren(say("no_photo")));
    picture.append(image);
  }
  return picture;
}

function card(hit, marks) {
  const title = hit.title || hit.id;
  const picture = photoOf(title, hit.images[0]);
  const heading = hit.link ? el("a", { href: hit.link, rel: "noopener noreferrer nofollow", target: "_blank" }, title) : title;
  const around = [hit.id, hit.brand].filter(Boolean).join(" · ");
  const sure = hit.same === null ? "" : ` · ${say("chance_same", { share: share(hit.same) })}`;
  const others = hit.others ? ` · ${say("others", { count: number(hit.others) })}` : "";
  const parts = Object.entries(hit.shares).filter(([, added]) => added >= 0.0005)
    .map(([part, added]) => `${say(`part_${part}`)} ${number(added, 3)}`);
  const facts = el(
    "div", { class: "facts" },
    el("div", { class: "place" }, el("span", {}, String(hit.rank)), el("span", {}, number(hit.score, 3) + sure)),
    el("h2", {}, heading),
    el("div", { class: "id" }, around, hit.price ? " · " : "", hit.price ? el("b", {}, hit.price) : "", others),
    attributes(hit),
    hit.words.length ? el("p", { class: "why" }, say("words", { words: hit.words.join(", ") })) : "",
    parts.length ? el("p", { class: "why" }, say("score_by", { parts: parts.join(" + ") })) : "",
  );
  const item = el("li", { class: "card", tabindex: "-1", "data-id": hit.id });
  const pairs = Boolean(searched?.like && !searched.change);
  const mark = (right) => {
    const name = pairs ? (right ? "same" : "other") : right ? "right" : "wrong";
    const button = el("button", { type: "button", class: right ? "yes" : "no", "aria-pressed": "false" }, say(name));
    button.setAttribute("aria-label", `${say(name)}: ${title}`);
    button.addEventListener("click", () => setMark(hit.id, button.ariaPressed === "true" ? null : right));
    return button;
  };
  const more = el("button", { type: "button", class: "more" }, say("like"));
  more.setAttribute("aria-label", `${say("like")}: ${title}`);
  more.addEventListener("click", () => like(hit));
  const but = el("button", { type: "button", class: "change" }, say("but"));
  but.setAttribute("aria-label", `${say("but")} ${title}`);
  but.addEventListener("click", () => like(hit, true));
  item.append(picture, facts, el("div", { class: "actions" }, more, but, mark(true), mark(false)));
  showMark(item, marks[hit.id] ?? null);
  return item;
}

function attributes(hit) {
  const pairs = Object.entries(hit.attributes);
  if (!pairs.length) return "";
  return el("ul", { class: "attributes" }, pairs.map(([key, value]) => {
    const changed = hit.changed[key];
    const kind = changed === undefined ? (hit.matching.includes(key) ? "match" : null) : changed ? "wished" : "unwished";
    const sure = hit.confidence[key];
    const title = sure === undefined ? null : say("sure", { share: share(sure) });
    return el("li", { class: kind, title }, `${key}: ${value}`);
  }));
}

function like(hit, change = false) {
  setPhoto(null);
  state.like = { id: hit.id, title: hit.title || hit.id, photo: hit.images[0] ?? "" };
  state.text = byId("text").value = "";
  state.change = byId("change").value = "";
  const wishes = Object.keys(hit.attributes).map((key) => el("option", { value: `${key}: ` }));
  byId("wishes").replaceChildren(...wishes);
  showReference();
  if (change) {
    byId("change").focus();
    byId("reference").scrollIntoView({ block: "center" });
  } else {
    search().then(() => byId("results").focus());
    scrollTo({ top: 0 });
  }
}

// Marks

function showMark(item, right) {
  item.classList.toggle("right", right === true);
  item.classList.toggle("wrong", right === false);
  item.querySelector(".yes").ariaPressed = String(right === true);
  item.querySelector(".no").ariaPressed = String(right === false);
}

async function setMark(id, right) {
  try {
    const { text, photo, like: liked, change } = searched;
    showCounts(await ask("/marks", body({ text, photo, like: liked, change }, { id, right })));
    for (const each of document.querySelectorAll(`.card[data-id="${CSS.escape(id)}"]`)) showMark(each, right);
    showTallies();
  } catch (error) {
    showNotes([error.message], true);
  }
}

// Of two embedders side by side: how many results of each are marked.
function showTallies() {
  for (const side of document.querySelectorAll("#lists section")) {
    const [right, wrong] = [".right", ".wrong"].map((kind) => number(side.querySelectorAll(`.card${kind}`).length));
    side.querySelector("h2 span").textContent = say("tally", { right, wrong });
  }
}

function showCounts(counts) {
  const total = counts.right + counts.wrong + counts.same + counts.different;
  byId("marks").hidden = !total;
  byId("marks-eval").hidden = !(counts.right + counts.wrong);
  byId("marks-dedupe").hidden = !(counts.same + counts.different);
  byId("marks-count").textContent = `${say("marks", mapped(counts, (count) => number(count)))}.`;
}
const mapped = (values, use) => Object.fromEntries(Object.entries(values).map(([key, value]) => [key, use(value)]));

// Filters

let filtersOpen = null, filtersTurn = 0;

async function showFilters() {
  const query = new URLSearchParams(written().filters.map((filter) => ["filter", filter]));
  const turn = (filtersTurn += 1);
  byId("facets").ariaBusy = "true";
  const content = await ask(`/filters?${query}`).catch(() => null); // no vectors yet: the search says so
  if (turn !== filtersTurn) return; // asked again meanwhile
  byId("facets").ariaBusy = "false";
  if (!content) return;
  const open = new Set([...document.querySelectorAll("#facets details[open]")].map((each) => each.dataset.key));
  const focused = document.activeElement?.dataset?.filter;
  byId("left").textContent = say("listings", { count: number(content.listings) });
  byId("clear").hidden = !written().filters.length;
  const facets = content.filters.map((facet) => fieldset(facet, open));
  if (content.price) facets.unshift(range(content.price));
  byId("facets").replaceChildren(...facets);
  byId("filters").hidden = !facets.length;
  if (filtersOpen === null) byId("filters").open = filtersOpen = matchMedia("(min-width: 801px)").matches;
  if (focused) document.querySelector(`[data-filter="${CSS.escape(focused)}"]`)?.focus();
}

function fieldset({ key, values }, open) {
  const own = state.filters.get(key) ?? new Set();
  const there = new Set(values.map(({ value }) => value.toLowerCase()));
  const extra = [...own].filter((value) => !there.has(value.toLowerCase())).map((value) => ({ value, count: 0 }));
  const rows = [...extra, ...values].map(({ value, count }) => {
    const on = [...own].some((each) => each.toLowerCase() === value.toLowerCase());
    const box = el("input", { type: "checkbox", "data-filter": `${key}=${value}` });
    box.checked = on;
    box.addEventListener("change", () => {
      for (const each of [...own]) if (each.toLowerCase() === value.toLowerCase()) own.delete(each);
      if (box.checked) own.add(value);
      if (own.size) state.filters.set(key, own);
      else state.filters.delete(key);
      filtered();
    });
    return { on, row: el("label", { class: count || on ? null : "none" }, box, el("span", {}, value), el("span", { class: "number" }, number(count))) };
  });
  const first = rows.filter(({ on }, at) => on || at < 6), rest = rows.filter(({ on }, at) => !on && at >= 6);
  const more = rest.length
    ? el("details", { "data-key": key, open: open.has(key) }, el("summary", {}, say("filters_more", { count: rest.length })), rest.map(({ row }) => row))
    : "";
  return el("fieldset", {}, el("legend", {}, key), first.map(({ row }) => row), more);
}

function range({ key, least, most }) {
  const field = (sign, name, edge) => {
    const bound = key + sign, value = state.bounds.get(bound);
    const input = el("input", { type: "number", step: "any", "data-filter": bound, placeholder: edge, value });
    input.addEventListener("change", () => {
      if (input.value) state.bounds.set(bound, input.value);
      else state.bounds.delete(bound);
      filtered();
    });
    return el("label", {}, el("span", {}, say(name)), input);
  };
  return el("fieldset", {}, el("legend", {}, key), field(">=", "from", Math.floor(least)), field("<=", "to", Math.ceil(most)));
}

function filtered() {
  if (searched || written().text || state.photo || state.like) search();
  else showFilters();
}

// Duplicates

const review = { pairs: [], at: 0 };

async function startReview() {
  try {
    const content = await ask("/duplicates");
    review.pairs = content.pairs;
    showNotesIn(content.problem);
  } catch (error) {
    byId("count").textContent = error.message;
    return;
  }
  showPair();
}

function showNotesIn(problem) {
  if (problem) notice(problem);
}

function showPair(focus = false) {
  const { pairs, at } = review, pair = pairs[at];
  byId("verdicts").hidden = !pairs.length;
  if (!pair) {
    byId("count").textContent = say(pairs.length ? "review_done" : "review_none");
    byId("results").replaceChildren();
  } else {
    byId("count").textContent = say("review_of", { number: number(at + 1), count: number(pairs.length) });
    byId("results").replaceChildren(pairCard(pair));
  }
  for (const id of ["same", "different", "next"]) byId(id).disabled = !pair;
  byId("same").ariaPressed = String(pair?.same === true);
  byId("different").ariaPressed = String(pair?.same === false);
  byId("undo").disabled = !pair || pair.same === null || pair.elsewhere;
  byId("back").disabled = at === 0;
  if (focus) byId("results").focus({ preventScroll: true });
}

function pairCard(pair) {
  const group = pair.group ? ` · ${say("review_group", { group: pair.group })}` : "";
  const decided = pair.same === null ? "" : ` · ${say(pair.same ? "review_decided_same" : "review_decided_different")}`;
  const where = pair.elsewhere ? ` ${say("review_elsewhere")}` : "";
  const likeness = Object.entries(pair.similarity ?? {}).filter(([, value]) => value !== null);
  const facts = [
    ...pair.shared_codes.map((value) => ["match", say("fact_code", { value })]),
    ...Object.entries(pair.shared_attributes).map(([key, value]) => ["match", say("fact_same", { key, value })]),
    ...Object.entries(pair.conflicting_attributes).map(([key, [one, other]]) => ["other", say("fact_other", { key, one, other })]),
    ...likeness.map(([kind, value]) => [null, say(`fact_${kind}`, { share: share(value) })]),
  ];
  return el(
    "article", { class: "pair" },
    el("p", { class: "soft" }, say("review_score", { score: number(pair.score, 2) }) + group + decided + where),
    el("div", { class: "sides" }, pair.sides.map(side)),
    el("ul", { class: "attributes" }, facts.map(([kind, text]) => el("li", { class: kind }, text))),
  );
}

function side(shown) {
  const title = shown.title || shown.id;
  const picture = photoOf(title, shown.photos[0] && `${shown.photos[0]}?size=large`);
  return el(
    "div", { class: "side" }, picture,
    el(
      "div", { class: "facts" }, el("h2", {}, title),
      el("div", { class: "id" }, [shown.id, shown.brand].filter(Boolean).join(" · "), shown.price ? " · " : "", shown.price ? el("b", {}, shown.price) : ""),
      shown.words.length ? el("p", {}, say("only_here", { words: shown.words.join(", ") })) : "",
      el("p", { class: "soft" }, shown.text),
    ),
  );
}

async function decide(same) {
  const pair = review.pairs[review.at];
  if (!pair) return;
  try {
    const words = JSON.stringify({ id: pair.id, other_id: pair.other_id, same });
    showCounts(await ask("/verdicts", { method: "POST", headers: { "content-type": "application/json" }, body: words }));
    pair.same = same;
    pair.elsewhere = false;
    notice("");
    if (same !== null) review.at += 1;
    showPair(true);
  } catch (error) {
    notice(error.message);
  }
}

function step(by) {
  review.at = Math.min(Math.max(0, review.at + by), review.pairs.length);
  showPair(true);
}

// The service's state

async function poll() {
  try {
    const now = await ask("/version", {}, 1);
    const stale = now.stale === 1 ? "one_stale" : "stale";
    if (now.vectors === null) notice(say("no_vectors"));
    else if (now.problem) notice(now.problem);
    else if (now.stale) notice(say(stale, { count: number(now.stale) }));
    else if (now.stale === null && version?.stale !== undefined && version.stale !== null) notice(say("stale_unknown"));
    else if (version && version.vectors !== now.vectors) notice(say("swapped", { version: now.vectors }));
    else if (!document.body.classList.contains("busy")) notice("");
    if (version && version.vectors !== now.vectors && document.body.dataset.view === "search") showFilters();
    byId("made").textContent = [now.embedder, now.beside, now.vectors, say("listings", { count: number(now.listings) })].filter(Boolean).join(" · ");
    version = now;
  } catch (error) {
    notice(error.message);
  }
}

// What people do

function typing(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");
}

function searchKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const item = event.target instanceof Element ? event.target.closest(".card") : null;
  if (event.key === "/") {
    byId("text").focus();
    byId("text").select();
  } else if (["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"].includes(event.key)) {
    const cards = [...document.querySelectorAll(".card")];
    if (!cards.length || (event.target !== document.body && !event.target.closest?.("#results"))) return;
    const by = ["ArrowRight", "ArrowDown"].includes(event.key) ? 1 : -1;
    cards[Math.min(Math.max(0, (item ? cards.indexOf(item) : -1) + by), cards.length - 1)].focus();
  } else if (item && "lbyn".includes(event.key.toLowerCase()) && event.key.length === 1) {
    item.querySelector({ l: ".more", b: ".change", y: ".yes", n: ".no" }[event.key.toLowerCase()]).click();
  } else return;
  event.preventDefault();
}

function reviewKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const key = event.key.toLowerCase();
  if (key === " " && event.target instanceof HTMLButtonElement) return;
  if (key === "s") decide(true);
  else if (key === "d") decide(false);
  else if (key === "u") { if (!byId("undo").disabled) decide(null); }
  else if (key === "arrowright" || key === " ") step(1);
  else if (key === "arrowleft") step(-1);
  else return;
  event.preventDefault();
}

function startSearch() {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.text = byId("text").value;
    state.change = byId("change").value;
    if (state.text.trim() && state.like) { // new words are a new query
      state.like = null;
      state.change = byId("change").value = "";
      showReference();
    }
    search();
  });
  byId("photo").addEventListener("change", () => {
    takePhoto(byId("photo").files[0]);
    byId("photo").value = "";
  });
  byId("more").addEventListener("click", () => {
    const count = document.querySelectorAll(".card").length;
    state.k = Math.min(state.k + Math.max(10, page.k), page.most_results);
    search({ keep: true }).then(() => document.querySelectorAll(".card")[count]?.focus());
  });
  byId("clear").addEventListener("click", () => {
    state.filters.clear();
    state.bounds.clear();
    filtered();
  });
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    takePhoto(file);
  });
  let inside = 0;
  const drop = (on) => (byId("drop").hidden = !on);
  addEventListener("dragenter", () => drop((inside += 1) > 0));
  addEventListener("dragleave", () => drop((inside -= 1) > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop((inside = 0) > 0);
    if (event.dataTransfer.files.length) takePhoto(event.dataTransfer.files[0]);
    else showNotes([say("photo_no_file")], true);
  });
  addEventListener("keydown", searchKeys);
  addEventListener("popstate", () => {
    setPhoto(null);
    fromAddress();
    showReference();
    search();
    showFilters();
  });
  fromAddress();
  showReference();
  if (state.text || state.like) search();
  else showFilters();
}

page = await ask("/page.json");
if (document.body.dataset.view === "review") {
  for (const [id, use] of Object.entries({ same: () => decide(true), different: () => decide(false), undo: () => decide(null), back: () => step(-1), next: () => step(1) })) {
    byId(id).addEventListener("click", use);
  }
  addEventListener("keydown", reviewKeys);
  startReview();
} else startSearch();
ask("/marks").then(showCounts, () => {});
poll();
setInterval(poll, POLL_MS);
