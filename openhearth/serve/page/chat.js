// The chat page. Everything that is shown is put in as text, never as HTML: a model can produce any characters.
"use strict";

const $ = (id) => document.getElementById(id);
const SETTINGS = ["system", "temperature", "top_p", "max_tokens", "seed", "theme"];
const FORMAT = "openhearth-chat/1";

// A turn is {role, versions: [{text, note, made}], at}: an answer that was asked for again keeps its earlier versions.
let turns = [];
let model = null;
let running = null; // the AbortController of the answer that is being made

// -- what is drawn ----------------------------------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Text with ``` blocks and `code` as such.
function formatted(text) {
  return text.split(/^(```[^\n]*\n[\s\S]*?(?:\n```[ \t]*$|(?![\s\S])))/m).map((part) => {
    const block = /^```[^\n]*\n([\s\S]*?)(?:\n```[ \t]*)?$/.exec(part);
    if (block) return element("pre", { tabIndex: 0 }, element("code", { textContent: block[1] }));
    const pieces = part.split(/(`[^`\n]+`)/);
    return element("span", {}, ...pieces.map((piece, odd) => (odd % 2 ? element("code", { textContent: piece.slice(1, -1) }) : piece)));
  });
}

const current = (turn) => turn.versions[turn.at];

function draw(number) {
  const turn = turns[number];
  const said = current(turn);
  const user = turn.role === "user";
  const writing = running !== null && number === turns.length - 1 && !user;
  const body = element("div", { className: "body" });
  body.append(...(user ? [said.text] : formatted(said.text)));
  const tools = element("div", { className: "tools" });
  const tool = (label, does) => tools.append(element("button", { type: "button", textContent: label, onclick: does, disabled: running !== null }));
  if (!writing) {
    tool("Copy", () => navigator.clipboard.writeText(said.text).then(() => say("Copied."), () => say("The browser did not allow to copy.")));
    if (user) tool("Edit", () => edit(number));
    else if (number === turns.length - 1) tool("Regenerate", () => answer(number));
    if (turn.versions.length > 1) {
      tool("‹ Earlier", () => show(number, turn.at - 1));
      tools.append(element("span", { className: "made", textContent: `${turn.at + 1} of ${turn.versions.length}` }));
      tool("Later ›", () => show(number, turn.at + 1));
    }
    if (said.made) tools.append(element("span", { className: "made", textContent: described(said.made) }));
  }
  const item = element("li", { className: `message ${turn.role}${writing ? " writing" : ""}` },
    element("p", { className: "who", textContent: user ? "You" : model?.id ?? "Model" }), body);
  if (said.note) item.append(element("p", { className: "note", textContent: said.note }));
  item.append(tools);
  const old = $("log").children[number];
  if (old) old.replaceWith(item);
  else $("log").append(item);
}

function drawAll() {
  $("log").replaceChildren();
  turns.forEach((_, number) => draw(number));
  $("empty").hidden = turns.length > 0;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  for (const id of ["new", "import", "export"]) $(id).disabled = running !== null;
}

function described(made) {
  const parts = [`temperature ${made.temperature}`, `seed ${made.seed}`];
  if (made.top_p !== 1) parts.splice(1, 0, `top p ${made.top_p}`);
  if (made.max_tokens) parts.push(`at most ${made.max_tokens} tokens`);
  if (made.tokens_per_second) parts.push(`${made.tokens_per_second} tokens/s`);
  return parts.join(" · ");
}

function show(number, version) {
  const turn = turns[number];
  turn.at = Math.min(Math.max(version, 0), turn.versions.length - 1);
  draw(number);
  keep();
}

// `quiet`: for screen readers only, where the page shows it anyway.
function say(text, wrong = false, quiet = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
  $("status").classList.toggle("unseen", quiet);
}

const atEnd = () => $("log").parentElement.scrollHeight - $("log").parentElement.scrollTop - $("log").parentElement.clientHeight < 80;
const toEnd = () => { $("log").parentElement.scrollTop = $("log").parentElement.scrollHeight; };

// -- asking ------------------------------------------------------------------------------------------------------------------

function settings() {
  const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));
  return {
    temperature: number("temperature") ?? 1, top_p: number("top_p") ?? 1, max_tokens: number("max_tokens"),
    seed: number("seed") ?? Math.floor(Math.random() * 2 ** 31), system: $("system").value.trim(),
  };
}

function headers() {
  const key = $("key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function failure(response) {
  const body = await response.json().catch(() => ({}));
  return Object.assign(new Error(body.error?.message ?? `the server said ${response.status}`), { code: body.error?.code });
}

// The chunks of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (waiting + value).split("\n\n");
    waiting = whole.pop();
    for (const event of whole) {
      const data = event.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

// Ask with as many of the latest turns as fit the model's context.
async function ask(messages, made, signal) {
  const { system, ...sampling } = made;
  const head = system ? [{ role: "system", content: system }] : [];
  for (let from = 0; ; from += 2) {
    const body = { model: model.id, messages: [...head, ...messages.slice(from)], stream: true, stream_options: { include_usage: true }, ...sampling };
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (response.ok) return { response, leftOut: from };
    const error = await failure(response);
    if (error.code !== "context_length_exceeded" || from + 2 >= messages.length) throw error;
  }
}

// Make the answer that is turn `number`: a new turn, or another version of it. Stopping keeps what was said.
async function answer(number) {
  if (running) return;
  if (!model && !(await meet())) return;
  const made = settings();
  const messages = turns.slice(0, number).map((turn) => ({ role: turn.role, content: current(turn).text }));
  const version = { text: "", made, note: "" };
  if (turns[number]) turns[number].at = turns[number].versions.push(version) - 1;
  else turns.push({ role: "assistant", versions: [version], at: 0 });
  running = new AbortController();
  drawAll();
  toEnd();
  say("The model is answering.", false, true);
  let drawing = 0;
  const redraw = () => { drawing ||= requestAnimationFrame(() => { drawing = 0; const follow = atEnd(); draw(number); if (follow) toEnd(); }); };
  const began = performance.now();
  let wrong = "";
  try {
    const { response, leftOut } = await ask(messages, made, running.signal);
    if (leftOut) version.note = `The oldest ${leftOut} messages no longer fit the model's context and were left out.`;
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices?.[0];
      if (choice?.delta?.content) { version.text += choice.delta.content; redraw(); }
      if (choice?.finish_reason === "length") version.note += " Ended by the limit of tokens or of the context.";
      if (chunk.usage) made.tokens_per_second = Math.round(chunk.usage.completion_tokens / Math.max(performance.now() - began, 1) * 1000);
    }
  } catch (error) {
    if (error.name === "AbortError") version.note = "Stopped; what was said is kept.";
    else { wrong = error.message; version.note = `No whole answer: ${wrong}.`; }
  }
  running = null;
  cancelAnimationFrame(drawing);
  if (version.text.trim() === "" && (wrong || version.note.startsWith("Stopped"))) forget(number, version);
  drawAll();
  toEnd();
  keep();
  say(wrong ? `${wrong[0].toUpperCase()}${wrong.slice(1)}.` : version.note.trim() || "The answer is whole.", Boolean(wrong), !wrong);
  $("text").focus();
}

// An answer without a word is not kept; the message before it goes back into the field.
function forget(number, version) {
  const turn = turns[number];
  turn.versions = turn.versions.filter((one) => one !== version);
  turn.at = turn.versions.length - 1;
  if (turn.versions.length) return;
  const [question] = turns.splice(number - 1, 2);
  if ($("text").value === "") { $("text").value = current(question).text; grow(); }
}

function send(event) {
  event?.preventDefault();
  const text = $("text").value;
  if (running || !text.trim()) return;
  $("text").value = "";
  grow();
  turns.push({ role: "user", versions: [{ text }], at: 0 });
  answer(turns.length);
}

function edit(number) {
  if (running) return;
  const field = element("textarea", { value: current(turns[number]).text, rows: 3, ariaLabel: "The message, to be changed" });
  const done = () => {
    if (!field.value.trim()) return;
    turns = [...turns.slice(0, number), { role: "user", versions: [{ text: field.value }], at: 0 }];
    answer(number + 1);
  };
  const leave = () => { draw(number); $("text").focus(); };
  field.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); leave(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
  };
  const buttons = element("div", { className: "tools" },
    element("button", { type: "button", textContent: "Send again", onclick: done }),
    element("button", { type: "button", textContent: "Leave it", onclick: leave }));
  $("log").children[number].replaceChildren(element("div", { className: "edit" }, field, buttons));
  field.focus();
}

// -- keeping -----------------------------------------------------------------------------------------------------------------

function keep() {
  try {
    localStorage.setItem("turns", JSON.stringify(turns));
    for (const id of SETTINGS) localStorage.setItem(id, $(id).value);
    sessionStorage.setItem("key", $("key").value);
  } catch { /* a browser that keeps nothing still chats */ }
}

function recall() {
  try {
    for (const id of SETTINGS) $(id).value = localStorage.getItem(id) ?? $(id).value;
    $("key").value = sessionStorage.getItem("key") ?? "";
    turns = checked(JSON.parse(localStorage.getItem("turns") ?? "[]"));
  } catch { turns = []; }
}

// Turns as they must be: what a file or the browser's store holds is not trusted to be what was put there.
function checked(given) {
  if (!Array.isArray(given) || given.length > 4096) throw new Error("not a conversation");
  const found = given.map((turn, number) => {
    const role = number % 2 ? "assistant" : "user";
    const versions = Array.isArray(turn?.versions) ? turn.versions : [{ text: turn?.content, made: turn?.made }];
    if (turn?.role !== role || !versions.length || versions.some((one) => typeof one?.text !== "string")) throw new Error(`message ${number + 1} is not one`);
    const kept = versions.map(({ text, note, made }) => ({ text, note: typeof note === "string" ? note : "", made: madeWith(made) }));
    return { role, versions: kept, at: Number.isInteger(turn.at) && kept[turn.at] ? turn.at : kept.length - 1 };
  });
  if (found.length % 2) found.pop(); // a question without an answer
  return found;
}

function madeWith(made) {
  if (typeof made !== "object" || made === null) return undefined;
  const numbers = ["temperature", "top_p", "max_tokens", "seed", "tokens_per_second"].filter((name) => Number.isFinite(made[name]));
  return { ...Object.fromEntries(numbers.map((name) => [name, made[name]])), system: typeof made.system === "string" ? made.system : "" };
}

function exported() {
  const head = $("system").value.trim() ? [{ role: "system", content: $("system").value.trim() }] : [];
  const messages = turns.map((turn) => ({ role: turn.role, content: current(turn).text, ...(current(turn).made ? { made: current(turn).made } : {}) }));
  const { system, ...sampling } = settings();
  return { format: FORMAT, model: { release: model?.id ?? "", root: model?.root ?? "" }, sampling, messages: [...head, ...messages] };
}

function save() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 2)], { type: "application/json" }));
  element("a", { href: url, download: "conversation.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  say("Exported.");
}

async function load(file) {
  try {
    if (file.size > 20e6) throw new Error("it is too large");
    const given = JSON.parse(await file.text());
    if (given?.format !== FORMAT || !Array.isArray(given.messages)) throw new Error("it is not a conversation of OpenHearth");
    const [first] = given.messages;
    const system = first?.role === "system" ? String(first.content) : "";
    turns = checked(given.messages.slice(system || first?.role === "system" ? 1 : 0));
    $("system").value = system;
    drawAll();
    keep();
    say(given.model?.root && model && given.model.root !== model.root ? "Imported; it was with another model." : "Imported.");
  } catch (error) {
    say(`The file cannot be imported: ${error instanceof SyntaxError ? "it is not JSON" : error.message}.`, true);
  }
  $("file").value = "";
}

// -- the page ----------------------------------------------------------------------------------------------------------------

async function meet() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) {
      const error = await failure(response);
      if (response.status === 401) { toggle(true); $("key").focus(); }
      throw error;
    }
    model = (await response.json()).data[0];
    $("name").textContent = document.title = model.id;
    $("about").textContent = `${model.parameters.toLocaleString("en")} parameters · context ${model.context.toLocaleString("en")}`;
    $("about").title = `root digest of the release: ${model.root}`;
    say("");
    return true;
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : `${error.message}.`, true);
    return false;
  }
}

function toggle(open = $("settings").hidden) {
  $("settings").hidden = !open;
  $("open-settings").setAttribute("aria-expanded", String(open));
}

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight}px`;
}

function colours() {
  if ($("theme").value) document.documentElement.dataset.theme = $("theme").value;
  else delete document.documentElement.dataset.theme;
}

$("composer").addEventListener("submit", send);
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  if (event.key === "ArrowUp" && $("text").value === "" && turns.length > 1 && !running) { event.preventDefault(); edit(turns.length - 2); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => { turns = []; drawAll(); keep(); say(""); $("text").focus(); });
$("export").addEventListener("click", save);
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { if ($("file").files[0]) load($("file").files[0]); });
$("open-settings").addEventListener("click", () => toggle());
$("settings").addEventListener("change", () => { colours(); keep(); });
$("key").addEventListener("change", meet);

recall();
colours();
drawAll();
toEnd();
meet();
