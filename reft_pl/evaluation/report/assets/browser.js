"use strict";
// The browser of solutions: filters, pages, one question's answers side by side. What is filtered for and which question is open
// stand in the page's address after "#", so that a view can be kept and sent.

const PAGE_SIZE = 12;

const FILTERS = {
  run: (value, row) => row[RUN] === Number(value),
  stage: (value, row) => runs[row[RUN]].stage === value,
  set: (value, row) => questions[row[QUESTION]][0] === value,
  origin: (value, row) => row[ORIGIN] === Number(value),
  verdict: (value, row) => Boolean(row[CORRECT]) === (value === "correct"),
  status: (value, row) => row[STATUS] === Number(value),
  text: (value, row) => searchedTexts[row[TEXT]].includes(value) || searchedQuestions[row[QUESTION]].includes(value),
};

const count = (n) => n.toLocaleString("en");
const byId = (id) => document.getElementById(id);
const form = byId("filters");
const dialog = byId("question");
const searchedTexts = texts.map((text) => text.toLowerCase());
const searchedQuestions = questions.map(([, id, text]) => `${id}\n${text}`.toLowerCase());

let found = rows; // rows that pass the filters
let page = 0;
let opened = null; // the question that is shown by itself

function fillChoices() {
  const distinct = (values) => [...new Set(values)];
  const choices = {
    run: distinct(rows.map((row) => row[RUN])).map((place) => [place, runs[place].name]),
    stage: distinct(rows.map((row) => runs[row[RUN]].stage)).filter(Boolean).map((stage) => [stage, stage]),
    set: distinct(questions.map(([set]) => set)).map((set) => [set, set]),
    origin: origins.map((origin, place) => [place, origin]),
    status: distinct(rows.map((row) => row[STATUS])).map((place) => [place, statusName(place)]),
  };
  for (const [name, options] of Object.entries(choices)) {
    form.elements[name].append(...options.map(([value, label]) => new Option(label, value)));
  }
}

function filter() {
  const active = Object.entries(FILTERS)
    .map(([name, test]) => [form.elements[name].value, test])
    .filter(([value]) => value.trim());
  found = rows.filter((row) => active.every(([value, test]) => test(test === FILTERS.text ? value.toLowerCase() : value, row)));
}

function showPage() {
  const start = page * PAGE_SIZE;
  const here = found.slice(start, start + PAGE_SIZE);
  const whole = found.length < rows.length ? ` (${count(rows.length)} without filters)` : "";
  byId("found").value = here.length
    ? `Solutions ${count(start + 1)} to ${count(start + here.length)} of ${count(found.length)}${whole}`
    : "No solution is like that.";
  byId("before").disabled = page === 0;
  byId("after").disabled = start + PAGE_SIZE >= found.length;
  byId("cards").replaceChildren(...here.map((row) => cardWithQuestion(row, () => openQuestion(row[QUESTION]))));
}

function showQuestion() {
  const [set, id, text, gold] = questions[opened];
  byId("question-id").textContent = `${set}, ${id}`;
  byId("question-text").textContent = text;
  byId("question-gold").textContent = `Right answer: ${gold}`;
  const answers = rows
    .filter((row) => row[QUESTION] === opened)
    .sort((a, b) => a[RUN] - b[RUN] || a[ORIGIN] - b[ORIGIN] || a[BATCH] - b[BATCH] || b[COUNT] - a[COUNT]);
  const columns = [...new Set(answers.map((row) => row[RUN]))].map((run) => {
    const column = element("div", "column");
    column.appendChild(element("h4")).append(runName(run));
    column.append(...answers.filter((row) => row[RUN] === run).map(plainCard));
    return column;
  });
  dialog.querySelector(".columns").replaceChildren(...columns);
  byId("question-before").disabled = neighbour(-1) === undefined;
  byId("question-after").disabled = neighbour(1) === undefined;
  if (!dialog.open) dialog.showModal();
}

function openQuestion(place) {
  opened = place;
  showQuestion();
  writeAddress();
}

/** The next question, or the one before, among those that passed the filters. */
function neighbour(step) {
  const places = found.map((row) => row[QUESTION]); // increasing
  return step > 0 ? places.find((place) => place > opened) : places.findLast((place) => place < opened);
}

function turn(step) {
  page += step;
  showPage();
  writeAddress();
  byId("solutions").scrollIntoView();
}

function filterAgain() {
  page = 0;
  filter();
  showPage();
  writeAddress();
}

function writeAddress() {
  const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  if (page) state.set("page", page + 1);
  if (opened !== null) state.set("question", opened);
  history.replaceState(null, "", `#${state}`);
}

function readAddress() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(FILTERS)) form.elements[name].value = state.get(name) ?? "";
  filter();
  const last = Math.max(0, Math.ceil(found.length / PAGE_SIZE) - 1);
  page = Math.min(last, Math.max(0, Number.parseInt(state.get("page") ?? 1) - 1)) || 0;
  showPage();
  const place = Number.parseInt(state.get("question"));
  if (place in questions) openQuestion(place);
}

function showLeftOut() {
  if (!leftOut.length) return;
  const box = byId("left-out");
  box.hidden = false;
  const total = leftOut.reduce((sum, part) => sum + part.of - part.kept, 0);
  box.querySelector("summary").textContent = `${count(total)} more solutions stand in the runs' files and not on this page.`;
  for (const { run, origin, set, kept, of } of leftOut) {
    const text = `${runs[run].name}, ${origin}, ${set}: ${count(kept)} of ${count(of)}, for questions chosen as by chance`;
    box.querySelector("ul").append(element("li", "", text));
  }
}

if (rows.length) {
  reveal("solutions");
  fillChoices();
  showLeftOut();
  readAddress();
  let typing;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(filterAgain, event.target.type === "search" ? 150 : 0);
  });
  form.addEventListener("reset", () => setTimeout(filterAgain));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("before").addEventListener("click", () => turn(-1));
  byId("after").addEventListener("click", () => turn(1));
  byId("question-before").addEventListener("click", () => openQuestion(neighbour(-1)));
  byId("question-after").addEventListener("click", () => openQuestion(neighbour(1)));
  byId("question-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    opened = null;
    writeAddress();
  });
  addEventListener("hashchange", () => location.hash.includes("=") && readAddress());
}
