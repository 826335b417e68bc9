"use strict";
// What one solution looks like. Text of questions and solutions goes into the document by textContent alone.

const { questions, origins, statuses, texts, rows, left_out: leftOut } = DATA.browser;
const { runs } = DATA;
const [QUESTION, RUN, ORIGIN, STATUS, TEXT, CORRECT, ANSWER, BATCH, COUNT] = Array(9).keys(); // of a row

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function statusName(place) {
  return place < 0 ? "not recorded" : statuses[place].replaceAll("_", " ");
}

function runName(place) {
  const { name, stage, colour } = runs[place];
  const made = element("span", "run", stage ? `${name} (${stage})` : name);
  made.style.setProperty("--colour", colour);
  return made;
}

/** A solution under its question, with a button that calls `open`. */
function cardWithQuestion(row, open) {
  const [set, , question, gold] = questions[row[QUESTION]];
  const made = element("article", "card");
  const facts = factsOf(row, row[CORRECT] ? "" : `, correct is ${gold}`);
  facts.firstChild.after(runName(row[RUN]));
  facts.append(element("span", "muted", set));
  const button = element("button", "", "Side by side");
  button.type = "button";
  button.addEventListener("click", open);
  made.append(facts, element("p", "", question), solution(row), button);
  return made;
}

/** A solution by itself. */
function plainCard(row) {
  const made = element("article", "card");
  made.append(factsOf(row, ""), solution(row));
  return made;
}

function factsOf(row, remark) {
  const facts = element("div", "facts");
  const answer = row[ANSWER] === null ? "no answer" : `answer ${row[ANSWER]}`;
  facts.append(
    element("span", row[CORRECT] ? "verdict correct" : "verdict wrong", row[CORRECT] ? "✓ correct" : "✗ wrong"),
    element("span", "", answer + remark),
    element("span", "muted", statusName(row[STATUS])),
    element("span", "muted", origins[row[ORIGIN]] + (row[BATCH] === null ? "" : `, batch ${row[BATCH]}`)),
  );
  if (row[COUNT] > 1) facts.append(element("span", "muted", `written ${row[COUNT]} times`));
  return facts;
}

function solution(row) {
  const made = element("pre");
  made.tabIndex = 0; // long ones scroll, by keyboard too
  showSolution(made, texts[row[TEXT]]);
  return made;
}
