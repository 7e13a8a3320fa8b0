/** Markdown documents become sections: cut at headings, never inside code. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { splitMarkdown } from "../../../static/app/markdown.js";

const headings = (text) => splitMarkdown(text, "File").sections.map(({ heading }) => heading);

test("one first-level heading at the top is the title, the next level makes the sections", () => {
  assert.deepEqual(splitMarkdown("# Q3\n\nIntro.\n\n## Sales\nUp.\n\n### Europe\nWell.\n\n## Cost\nDown.\n", "File"), {
    title: "Q3",
    sections: [
      { heading: "Introduction", markdown: "Intro." },
      { heading: "Sales", markdown: "Up.\n\n### Europe\nWell." },
      { heading: "Cost", markdown: "Down." },
    ],
  });
});

test("several first-level headings are sections, and there is no title", () => {
  assert.deepEqual(splitMarkdown("# A\n1\n# B\n2", "File"), {
    title: null,
    sections: [{ heading: "A", markdown: "1" }, { heading: "B", markdown: "2" }],
  });
});

test("text without headings is one section named after the file", () => {
  assert.deepEqual(splitMarkdown("Just text.\n", "File").sections, [{ heading: "File", markdown: "Just text." }]);
  assert.deepEqual(splitMarkdown("  \n", "File"), { title: null, sections: [] });
});

test("marks in code fences are no headings", () => {
  assert.deepEqual(headings("## A\n````sh\n# comment\n```\n## still code"), ["A"]);
  assert.deepEqual(headings("## A\n```sh\n# comment\n```\n## B\n~~~\n## no\n```\n~~~\n## C"), ["A", "B", "C"]);
  assert.deepEqual(headings("## A\n    # indented code\n#hashtag\n## B"), ["A", "B"]);
});

test("underlined headings count, rules and tables don't", () => {
  assert.deepEqual(headings("Title\n=====\n\nOne\n---\ntext\n\n---\n\n| a | b |\n|---|---|\n- item\n---\n\nTwo\n---\n"), ["One", "Two"]);
});

test("headings lose their marks, closing hashes and front matter", () => {
  assert.deepEqual(headings("---\ntitle: x\n---\n## **Bold** and [link](http://x) ##\n## `code` C#\n"), ["Bold and link", "code C#"]);
});

test("CRLF files and a byte order mark read the same", () => {
  const text = "# T\n\n## A\none\n\n## B\ntwo\n";
  assert.deepEqual(splitMarkdown(`\uFEFF${text.replaceAll("\n", "\r\n")}`, "File"), splitMarkdown(text, "File"));
});

test("a heading without text and one that is too long stay within what a report takes", () => {
  const [empty, long] = headings(`##\nx\n## ${"y".repeat(300)}\n`);
  assert.equal(empty, "File");
  assert.equal(long.length, 200);
});
