/**
 * A Markdown document to the sections of a report: cut at its headings, fences left whole. Pure.
 *
 * @typedef {{heading: string, markdown: string}} MarkdownSection
 * @typedef {{title: string | null, sections: MarkdownSection[]}} MarkdownDocument
 */

const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const UNDERLINE = /^ {0,3}(=+|-+)[ \t]*$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const MAX_HEADING_LENGTH = 200;
/** The heading of what stands between the title and the first section. */
const INTRODUCTION = "Introduction";

/**
 * Cut a document at its highest level of headings. A single heading of the first level, at the very beginning,
 * is the title; the cut is then made at the next level.
 *
 * @param {string} text
 * @param {string} fallback the heading of text that has none
 * @returns {MarkdownDocument}
 */
export function splitMarkdown(text, fallback) {
  const lines = withoutFrontMatter(text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n").split("\n"));
  const headings = findHeadings(lines);
  const firstLine = lines.findIndex((line) => line.trim() !== "");
  const tops = headings.filter(({ level }) => level === 1);
  const titled = tops.length === 1 && tops[0].line === firstLine;
  const title = titled ? tops[0].text : null;
  const inner = titled ? headings.filter(({ level }) => level > 1) : headings;
  const level = Math.min(...inner.map((heading) => heading.level), 7);
  const cuts = inner.filter((heading) => heading.level === level);
  const start = titled ? tops[0].line + tops[0].height : 0;

  /** @type {MarkdownSection[]} */
  const sections = [];
  const add = (/** @type {string} */ heading, /** @type {number} */ from, /** @type {number} */ to, always = true) => {
    const markdown = lines.slice(from, to).join("\n").trim();
    if (markdown || always) sections.push({ heading: heading.slice(0, MAX_HEADING_LENGTH) || fallback, markdown });
  };
  add(title === null ? fallback : INTRODUCTION, start, cuts[0]?.line ?? lines.length, false);
  cuts.forEach((cut, i) => add(cut.text, cut.line + cut.height, cuts[i + 1]?.line ?? lines.length));
  return { title: title?.slice(0, MAX_HEADING_LENGTH) ?? null, sections };
}

/**
 * @param {string[]} lines
 * @returns {{level: number, text: string, line: number, height: number}[]}
 */
function findHeadings(lines) {
  const found = [];
  let fence = "";
  for (let i = 0; i < lines.length; i++) {
    const mark = FENCE.exec(lines[i])?.[1];
    if (fence) {
      if (mark && mark[0] === fence[0] && mark.length >= fence.length && lines[i].trim() === mark) fence = "";
      continue;
    }
    if (mark) {
      fence = mark;
      continue;
    }
    const heading = HEADING.exec(lines[i]);
    if (heading) {
      found.push({ level: heading[1].length, text: plain(heading[2] ?? ""), line: i, height: 1 });
      continue;
    }
    const underline = UNDERLINE.exec(lines[i + 1] ?? "");
    const begins = i === 0 || lines[i - 1].trim() === "" || found.at(-1)?.line === i - 1;
    if (underline && begins && isProse(lines[i])) {
      found.push({ level: underline[1][0] === "=" ? 1 : 2, text: plain(lines[i]), line: i, height: 2 });
      i++;
    }
  }
  return found;
}

/**
 * Whether a line can be the text of an underlined heading: no list, quote, table, code or rule.
 * @param {string} line
 */
function isProse(line) {
  return line.trim() !== "" && !/^( {4}|\t| {0,3}([-*+>|]|\d+[.)]))/.test(line) && !UNDERLINE.test(line);
}

/**
 * A heading's text without its marks.
 * @param {string} text
 */
function plain(text) {
  return text
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/(\*\*|__|~~|`)(.+?)\1/g, "$2")
    .replace(/(^|\s)[*_]([^*_]+)[*_](?=\s|$)/g, "$1$2")
    .replace(/\s+/g, " ")
    .trim();
}

/**
 * @param {string[]} lines
 * @returns {string[]}
 */
function withoutFrontMatter(lines) {
  if (lines[0] !== "---") return lines;
  const end = lines.indexOf("---", 1);
  const isYaml = end > 0 && lines.slice(1, end).every((line) => line.trim() === "" || /^(\s|#|-|[\w-]+:)/.test(line));
  return isYaml ? lines.slice(end + 1) : lines;
}
