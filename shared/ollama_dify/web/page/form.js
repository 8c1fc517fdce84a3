"use strict";
// The form beside its code. With the token of `ollama-dify form --web` behind the # it also saves and tries;
// without it (as a file of a site) it writes code only. No text of a server is ever taken for HTML.
const $ = (id) => document.getElementById(id);
const start = new URLSearchParams(location.hash.slice(1));
const token = start.get("token");
const KEY = "OLLAMA_API_KEY";
let data, words, shown = "langchain", chosen = [], hints = {}, running = null, asked = 0;

const element = (tag, set = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), set);
  made.append(...inside);
  return made;
};
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
const lang = () => $("lang").value;
const fieldOf = (name) => data.fields.find((one) => one.variable === name);
const isShown = (field) => ["model", "model_type"].includes(field.variable)
  || field.applies_to.includes(value("model_type"));

function value(name) {
  const found = $("form").elements[name];
  return (found ? found.value : fieldOf(name)?.default ?? "").trim();
}
function setValue(name, text) {
  const found = $("form").elements[name];
  if (found) found.value = text;
}

// ---- the form -------------------------------------------------------------------------------------------

function control(field) {
  const id = "field-" + field.variable, hint = "hint-" + field.variable, preset = field.default ?? "";
  const same = { id, name: field.variable, required: field.required };
  const described = (made) => { made.setAttribute("aria-describedby", hint); return made; };
  const option = ([stored]) => element("option", { value: stored, selected: stored === preset });
  const radio = ([stored]) => element("label", {}, element("input", {
    type: "radio", name: field.variable, value: stored, checked: stored === preset }), element("span"));
  const hinted = element("p", { id: hint, className: "hint" });
  if (field.kind === "radio") {
    return described(element("fieldset", { className: "field", id }, element("legend"), ...field.options.map(radio), hinted));
  }
  const input = field.kind === "select" ? element("select", same, ...field.options.map(option))
    : element("input", { ...same, value: preset, spellcheck: false, autocomplete: "off",
        type: field.kind === "secret" ? "password" : "text" });
  if (field.kind === "secret") input.autocomplete = "new-password";
  if (field.variable === "model") input.setAttribute("list", "models");
  if (field.variable === "base_url") input.placeholder = "http://192.168.1.100:11434";
  if (["context_size", "max_tokens"].includes(field.variable)) input.inputMode = "numeric";
  const label = element("label", { htmlFor: id, className: field.required ? "required" : "" });
  return element("div", { className: "field" }, label, described(input), hinted);
}

function speak() {
  words = data.texts[lang()];
  document.documentElement.lang = lang();
  document.title = words.title;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = words[one.dataset.text];
  for (const field of data.fields) {
    const found = $("field-" + field.variable);
    const label = found.querySelector("legend") ?? found.parentElement.querySelector("label");
    label.textContent = field.labels[lang()];
    for (const [stored, labels] of field.options) {
      const option = [...found.querySelectorAll("option, input")].find((one) => one.value === stored);
      (option.tagName === "OPTION" ? option : option.nextSibling).textContent = labels[lang()];
    }
  }
  show();
}

function show() {
  const isEmbedding = value("model_type") === "text-embedding";
  for (const field of data.fields) {
    const found = $("field-" + field.variable);
    const isNumber = ["context_size", "max_tokens"].includes(field.variable);
    const isWrong = isNumber && !/^[1-9]\d{0,8}$/.test(value(field.variable));
    found.closest(".field").hidden = !isShown(field);
    if (isNumber) found.setAttribute("aria-invalid", isWrong);
    $("hint-" + field.variable).textContent = isWrong ? words.whole : hints[field.variable] ?? "";
  }
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isOn = tab.id === "tab-" + shown;
    tab.setAttribute("aria-selected", isOn);
    tab.tabIndex = isOn ? 0 : -1;
    if (isOn) $("code").setAttribute("aria-labelledby", tab.id);
  }
  $("code").textContent = CODE[shown]();
  $("key-note").hidden = !value("api_key") || shown === "credentials";
  $("prompt-label").textContent = isEmbedding ? words.text : words.prompt;
  $("drop").hidden = isEmbedding;
  $("try").hidden = value("model_type") === "rerank";
}

// ---- the code -------------------------------------------------------------------------------------------

// A password in the address belongs into the environment, not into code that is shown and copied.
const address = () => value("base_url").replace(/^([a-z]+:\/\/)?[^/]*@/i, "$1");
const number = (text) => (/^\d+$/.test(text) ? Number(text) : JSON.stringify(text));
const python = { true: "True", false: "False" };
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function settings() {
  const pairs = [["model", JSON.stringify(value("model"))], ["base_url", JSON.stringify(address())]];
  if (value("api_key")) pairs.push(["api_key_env", JSON.stringify(KEY)]);
  if (value("mode") === "completion" && isShown(fieldOf("mode"))) pairs.push(["mode", '"completion"']);
  for (const name of ["context_size", "max_tokens"]) pairs.push([name, number(value(name))]);
  for (const name of ["vision_support", "function_call_support"]) pairs.push([name, python[value(name)]]);
  return pairs.filter(([name]) => name === "api_key_env" || isShown(fieldOf(name)))
    .map(([name, text]) => `    ${name}=${text},\n`).join("");
}
const code = (from, name, variable, use) =>
  `from ${from} import ${name}\n\n${variable} = ${name}(\n${settings()})\nprint(${variable}.${use})\n`;

const CODE = {
  langchain() {
    const from = "langchain_ollama_dify";
    if (value("model_type") === "text-embedding") return code(from, "OllamaDifyEmbeddings", "embeddings", 'embed_query("Hello")');
    if (value("model_type") === "rerank") return code(from, "OllamaDifyRerank", "reranker", "model");
    if (value("mode") === "completion") return code(from, "OllamaDifyLLM", "llm", 'invoke("Hello")');
    return code(from, "ChatOllamaDify", "llm", 'invoke("Hello").text');
  },
  llamaindex() {
    const from = "llamaindex_ollama_dify";
    if (value("model_type") === "text-embedding") return code(from, "OllamaDifyEmbedding", "embed_model", 'get_text_embedding("Hello")');
    if (value("model_type") === "rerank") return code(from, "OllamaDifyRerank", "reranker", "model");
    return code(from, "OllamaDify", "llm", 'complete("Hello").text');
  },
  credentials() {
    const fields = data.fields.filter((one) => isShown(one) && !["model", "model_type", "api_key"].includes(one.variable));
    const form = Object.fromEntries(fields.map((one) => [one.variable, value(one.variable)]));
    form.base_url = address();
    if (value("api_key")) form.api_key = "<your API key>";
    return JSON.stringify({ model: value("model"), model_type: value("model_type"), credentials: form }, null, 2) + "\n";
  },
  shell() {
    const body = { model: value("model") }, options = { num_ctx: number(value("context_size")) };
    let path = "/api/embed";
    if (value("model_type") === "text-embedding") Object.assign(body, { input: "Hello", options });
    else if (value("model_type") === "rerank") {
      path = "/api/generate";
      Object.assign(body, { prompt: "Is Paris in France? Answer yes or no.", stream: false, logprobs: true, top_logprobs: 20,
        options: { ...options, num_predict: 1, temperature: 0 } });
    } else {
      options.num_predict = number(value("max_tokens"));
      path = value("mode") === "completion" ? "/api/generate" : "/api/chat";
      Object.assign(body, path === "/api/chat" ? { messages: [{ role: "user", content: "Hello" }] } : { prompt: "Hello" },
        { stream: false, options });
    }
    const key = value("api_key") ? ` \\\n  -H "Authorization: Bearer $${KEY}"` : "";
    return `curl ${quoted(address().replace(/\/+$/, "") + path)}${key} \\\n  -d ${quoted(JSON.stringify(body))}\n`;
  },
};

// ---- the server -----------------------------------------------------------------------------------------

async function post(path, more = {}, signal) {
  const body = { ...Object.fromEntries(data.fields.map((one) => [one.variable, value(one.variable)])), ...more, lang: lang() };
  const sent = { method: "POST", signal, redirect: "error", body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-ollama-dify-token": token } };
  const response = await fetch(path, sent);
  if (!response.ok) throw new Error(await response.text());
  return response;
}
const failure = (error) => ({ problem: error instanceof TypeError ? words.gone : error.message });
const call = (path) => post(path).then((response) => response.json()).catch(failure);

function tell(place, found) {
  place.replaceChildren();
  if (found.problem) place.append(element("p", { className: "bad", textContent: "✗ " + found.problem }));
  if (found.remedy) place.append(element("p", { className: "remedy", textContent: "→ " + found.remedy }));
  if (found.saved) place.append(element("p", { className: "good", textContent: "✓ " + found.saved }));
  if (found.report) place.append(element("pre", { textContent: found.report, tabIndex: 0 }));
}

async function readModels() {
  if (!token || !value("base_url")) return;
  const mine = ++asked, found = await call("models");
  if (mine !== asked) return; // the address has changed since
  $("models").replaceChildren(...(found.models ?? []).map((name) => element("option", { value: name })));
  hints.base_url = found.problem ?? "";
  show();
}

async function readModel() {
  if (!token || !value("base_url") || !value("model")) return;
  const mine = ++asked, found = await call("model");
  if (mine !== asked) return;
  hints = found.notes ?? { model: [found.problem, found.remedy].filter(Boolean).join(" ") };
  for (const [name, text] of Object.entries(found.values ?? {})) setValue(name, text);
  show();
}

async function save(event) {
  event.preventDefault();
  if (!token) return;
  $("save").disabled = true;
  tell($("result"), {});
  $("result").textContent = words.busy;
  tell($("result"), await call("save"));
  $("save").disabled = false;
  $("save").focus();
}

// ---- the try-out ----------------------------------------------------------------------------------------

async function take(files) {
  const read = (file) => new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done({ name: file.name, url: reader.result });
    reader.readAsDataURL(file);
  });
  chosen.push(...await Promise.all([...files].map(read)));
  showChosen();
}

function showChosen() {
  $("chosen").replaceChildren(...chosen.map(({ name, url }) => url.startsWith("data:image/")
    ? element("img", { src: url, alt: name }) : element("span", { textContent: "♪ " + name })));
  $("clear").hidden = chosen.length === 0;
}

const seconds = (nanoseconds) => ((nanoseconds ?? 0) / 1e9).toFixed(2);

function part(found) {
  if (found.problem) tell($("figures"), found);
  $("thinking").textContent += found.thinking ?? "";
  $("answer").textContent += found.text ?? "";
  if (!found.finish) return;
  const end = found.finish, written = end.eval_count ?? 0;
  $("figures").textContent = filled(words.tokens, { input: end.prompt_eval_count, output: written,
    load: seconds(end.load_duration), read: seconds(end.prompt_eval_duration), write: seconds(end.eval_duration),
    rate: end.eval_duration ? (written / (end.eval_duration / 1e9)).toFixed(1) : "?" });
}

async function stream(signal) {
  const response = await post("chat", { prompt: $("prompt").value, media: chosen.map((one) => one.url) }, signal);
  if (!response.headers.get("content-type").includes("ndjson")) return part(await response.json());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { done, value: piece } = await reader.read();
    if (done) return undefined;
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    lines.forEach((line) => part(JSON.parse(line)));
  }
}

async function send() {
  if (running || !token) return;
  running = new AbortController();
  $("answer").textContent = $("thinking").textContent = "";
  $("figures").textContent = words.busy;
  $("send").disabled = !($("stop").disabled = false);
  try {
    if (value("model_type") === "text-embedding") {
      const response = await post("embed", { prompt: $("prompt").value }, running.signal);
      const found = await response.json();
      if (found.problem) part(found);
      else $("figures").textContent = filled(words.vector, { dimensions: found.dimensions,
        input: found.input_tokens, seconds: found.seconds.toFixed(2) });
    } else await stream(running.signal);
  } catch (error) {
    if (error.name === "AbortError") $("figures").textContent = words.ended;
    else part(failure(error));
  }
  running = null;
  $("send").disabled = !($("stop").disabled = true);
}

// ---- everything together --------------------------------------------------------------------------------

function listen() {
  $("lang").addEventListener("change", speak);
  $("form").addEventListener("input", show);
  $("form").addEventListener("submit", save);
  $("form").elements.base_url.addEventListener("change", readModels);
  $("form").elements.model.addEventListener("change", readModel);
  $("read").addEventListener("click", () => readModels().then(readModel));
  $("copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText($("code").textContent); }
    catch { getSelection().selectAllChildren($("code")); return; } // not allowed: the code is ready for Ctrl-C
    $("copy").textContent = words.copied;
    setTimeout(() => { $("copy").textContent = words.copy; }, 1500);
  });
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const select = (tab) => { shown = tab.id.slice(4); show(); };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      select(next);
      next.focus();
    });
  });
  $("files").addEventListener("change", () => { take($("files").files); $("files").value = ""; });
  $("clear").addEventListener("click", () => { chosen = []; showChosen(); $("files").focus(); });
  for (const name of ["dragover", "dragleave", "drop"]) {
    $("drop").addEventListener(name, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  $("send").addEventListener("click", send);
  $("stop").addEventListener("click", () => running?.abort());
  $("prompt").addEventListener("keydown", (event) => { if (event.key === "Enter" && event.ctrlKey) send(); });
}

async function begin() {
  data = await (await fetch("form.json")).json();
  document.body.classList.toggle("with-server", Boolean(token));
  $("fields").append(...data.fields.map(control));
  $("prompt").value = "Hello";
  setValue("base_url", start.get("base_url") || "http://localhost:11434");
  setValue("model", start.get("model") || (token ? "" : "llava"));
  const own = navigator.language.slice(0, 2);
  $("lang").value = start.get("lang") ?? (own in data.texts ? own : "en");
  listen();
  speak();
  await readModels();
  await readModel();
}
begin();
