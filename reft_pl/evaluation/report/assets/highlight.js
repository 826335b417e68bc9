"use strict";
// Colours for Python. Text goes into the document by textContent alone, so nothing in it can become markup.

const TOKEN = new RegExp(
  [
    /(?<string>"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)/,
    /(?<comment>#[^\n]*)/,
    /(?<number>\b\d[\w.]*)/,
    /(?<word>[A-Za-z_]\w*)/,
  ].map((part) => part.source).join("|"),
  "g",
);
const KEYWORDS = new Set(
  ("and as assert async await break class continue def del elif else except finally for from global if import in is lambda None " +
    "nonlocal not or pass raise return True False try while with yield").split(" "),
);

/** Fill an element with a solution; programs in colours, prose as it is. */
function showSolution(element, text) {
  let end = 0;
  for (const { index, 0: token, groups } of isProgram(text) ? text.matchAll(TOKEN) : []) {
    const kind = groups.word ? KEYWORDS.has(token) && "keyword" : ["string", "comment", "number"].find((name) => groups[name]);
    if (!kind) continue;
    element.append(text.slice(end, index));
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = token;
    element.append(span);
    end = index + token.length;
  }
  element.append(text.slice(end));
}

function isProgram(text) {
  return /^\s*(?:def|import|from|class)\s/.test(text);
}
