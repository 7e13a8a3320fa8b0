/** CSV files as people have them become one table, or an error that names the line. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { CsvReader, MAX_ROWS, parseCsv } from "../../../static/app/csv.js";

test("quotes, doubled quotes and line breaks in quotes are kept as text", () => {
  assert.deepEqual(parseCsv('name,said\r\n"Smith, Ann","She said ""no"".\nTwice."\r\n'), {
    columns: ["name", "said"],
    rows: [["Smith, Ann", 'She said "no".\nTwice.']],
  });
});

test("a text cut anywhere reads the same as in one piece", () => {
  const text = '\uFEFFa;"b ""x""";c\r\n1;"two\r\nlines";3\r\n\r\n4;;"6"\r';
  const whole = parseCsv(text);
  assert.deepEqual(whole, { columns: ["a", 'b "x"', "c"], rows: [[1, "two\r\nlines", 3], [4, null, 6]] });
  for (let i = 0; i <= text.length; i++) {
    for (let j = i; j <= text.length; j += 3) {
      const reader = new CsvReader();
      for (const piece of [text.slice(0, i), text.slice(i, j), text.slice(j)]) reader.push(piece);
      assert.deepEqual(reader.end(), whole, `cut at ${i} and ${j}`);
    }
  }
});

test("the separator is guessed from the first line", () => {
  for (const separator of [",", ";", "\t", "|"]) {
    assert.deepEqual(parseCsv(["a", "b,c"].map((it) => `"${it}"`).join(separator) + `\n1${separator}2`).rows, [[1, 2]]);
  }
  assert.deepEqual(parseCsv("only\n1,5\n").rows, [["1,5"]]);
});

test("a column is numeric only when all of it is, and never loses a digit", () => {
  const { rows } = parseCsv("n,zip,id,mixed\n1.5,00501,12345678901234567,1\n-2.2,10001,2,x\n,,,\n");
  assert.deepEqual(rows, [[1.5, "00501", "12345678901234567", "1"], [-2.2, "10001", "2", "x"], [null, null, null, null]]);
});

test("numbers keep their written form: a column whose decimals are not alike stays text", () => {
  const { rows } = parseCsv("price;sum;round;same;zero\n39.90;120.5;1.00;1.25;-0\n7.25;98;2.00;2.75;0\n");
  assert.deepEqual(rows, [["39.90", "120.5", "1.00", 1.25, "-0"], ["7.25", "98", "2.00", 2.75, "0"]]);
});

test("short rows are filled up, empty cells at the end are dropped, names are made up", () => {
  assert.deepEqual(parseCsv("a,,c\n1\nx,y,z,,\n"), {
    columns: ["a", "Column 2", "c"],
    rows: [["1", null, null], ["x", "y", "z"]],
  });
});

test("what is no table is an error that names the line", () => {
  assert.throws(() => parseCsv(""), /no header/);
  assert.throws(() => parseCsv("a,b\n1,2\n1,2,3\n"), { message: "Line 3: 3 cells, but the header names 2" });
  assert.throws(() => parseCsv('a,b\n\n1,"open\nstill open'), { message: /^Line 3: a quote is opened/ });
  assert.throws(() => parseCsv(Array.from({ length: 21 }, (_, i) => i).join(",")), /21 columns/);
  assert.throws(() => parseCsv(`a\n${"x".repeat(2_001)}`), /Line 2: a cell has more than/);
  assert.throws(() => parseCsv(`a\n${"1\n".repeat(MAX_ROWS + 1)}`), /this file has more/);
  assert.equal(parseCsv(`a\n${"1\n".repeat(MAX_ROWS)}`).rows.length, MAX_ROWS);
});
