// Schemas as a tree: what a field is, its limits, its text. Deep branches are built when they are opened.

const LIMITS = [
  ["minLength", "at least $ characters"], ["maxLength", "at most $ characters"], ["minItems", "at least $ items"],
  ["maxItems", "at most $ items"], ["maxProperties", "at most $ entries"], ["minimum", "≥ $"], ["exclusiveMinimum", "> $"],
  ["maximum", "≤ $"], ["exclusiveMaximum", "< $"], ["pattern", "matches $"], ["default", "default $"],
];

const limitsOf = (schema) =>
  LIMITS.filter(([key]) => schema[key] !== undefined)
    .map(([key, text]) => text.replace("$", () => (typeof schema[key] === "string" ? schema[key] : JSON.stringify(schema[key]))))
    .join(", ");

const typeOf = (api, value) => {
  const name = nameOf(value);
  const schema = resolve(api, value);
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" | ");
  const parts = schema.oneOf ?? schema.anyOf;
  if (parts) return parts.map((part) => typeOf(api, part)).join(" | ");
  if (schema.type === "array") return `${typeOf(api, schema.items ?? {})}[]`;
  if (schema.type === "object" || schema.properties || schema.allOf) return name ?? "object";
  const type = [schema.type ?? "any"].flat().join(" | ");
  return schema.format && !["int32", "int64", "double"].includes(schema.format) ? `${type} (${schema.format})` : type;
};

// What can be opened below a value: its fields, or those of its items and alternatives.
const branches = (api, value) => {
  const schema = resolve(api, value);
  const parts = [...(schema.allOf ?? []), ...(schema.oneOf ?? []), ...(schema.anyOf ?? [])];
  if (schema.type === "array") parts.push(schema.items ?? {});
  if (typeof schema.additionalProperties === "object") parts.push(schema.additionalProperties);
  const required = schema.required ?? [];
  const own = Object.entries(schema.properties ?? {}).map(([name, field]) => ({ name, field, required: required.includes(name) }));
  return [...own, ...parts.flatMap((part) => branches(api, part))];
};

const N_OPEN = 2; // levels that stand open from the start

const fields = (api, value, path = []) => {
  const list = el("ul", { class: "fields" });
  for (const { name, field, required } of branches(api, value)) {
    const schema = resolve(api, field);
    const alternatives = (field.oneOf ?? schema.oneOf ?? []).map((part) => part.description ?? resolve(api, part).description);
    const text = field.description ?? schema.description ?? alternatives.find(Boolean);
    const head = [
      el("span", { class: required ? "field required" : "field" }, name), " ",
      el("code", {}, typeOf(api, field)), " ", el("span", { class: "dim" }, limitsOf({ ...schema, ...field })),
    ];
    const item = el("li");
    const key = nameOf(field) ?? nameOf(field.items) ?? name;
    if (branches(api, field).length > 0 && !path.includes(key)) {
      const details = el("details", { open: path.length < N_OPEN - 1 }, el("summary", {}, ...head), ...paragraphs(text));
      const fill = () => details.open && !details.dataset.filled && (details.dataset.filled = "yes") && details.append(fields(api, field, [...path, key]));
      details.addEventListener("toggle", fill);
      fill();
      item.append(details);
    } else {
      item.append(...head, ...paragraphs(text));
    }
    list.append(item);
  }
  return list;
};

const described = (api, value) => {
  const rows = branches(api, value);
  const head = el("p", {}, el("code", {}, typeOf(api, value)), " ", el("span", { class: "dim" }, limitsOf(resolve(api, value))));
  return rows.length ? [head, fields(api, value)] : [head];
};
