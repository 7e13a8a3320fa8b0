/**
 * CSV to a table, piece by piece, so that a large file can be read while the page stays alive. Pure.
 *
 * Quotes, doubled quotes, line breaks in quotes, CRLF and a byte order mark are as RFC 4180 and its users have them;
 * the separator (comma, semicolon, tab or bar) is guessed from the first line.
 */

export const MAX_ROWS = 20_000;
export const MAX_COLUMNS = 20;
export const MAX_CELL_LENGTH = 2_000;

const SEPARATORS = [",", ";", "\t", "|"];
const NUMBER = /^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?$/;

/** @typedef {string | number | null} Cell */
/** @typedef {{columns: string[], rows: Cell[][]}} Table */

/** What is wrong with a file, and in which line. */
export class CsvError extends Error {
  /**
   * @param {string} message
   * @param {number} [line] counted from 1
   */
  constructor(message, line) {
    super(line === undefined ? message : `Line ${line}: ${message}`);
    this.name = "CsvError";
    this.line = line ?? null;
  }
}

/** Reads CSV text that comes in pieces, cut anywhere. */
export class CsvReader {
  /** @type {string[]} */
  #columns = [];
  /** @type {string[][]} */
  #rows = [];
  /** @type {string[]} */
  #record = [];
  #cell = "";
  #quoted = false;
  #wasQuoted = false;
  #line = 1;
  #recordLine = 1;
  #separator = "";
  #held = "";

  /** How many rows have been read. */
  get rowCount() {
    return this.#rows.length;
  }

  /**
   * @param {string} text
   * @throws {CsvError} the file is not one table, or over a bound
   */
  push(text) {
    text = this.#held + text;
    this.#held = "";
    if (!this.#separator) {
      // The whole first line decides; until it is there, everything waits.
      text = text.replace(/^\uFEFF/, "");
      if (!/[\r\n]/.test(text) && text.length < 65_536) {
        this.#held = text;
        return;
      }
      this.#separator = guessSeparator(text);
    }
    // A quote or a CR at the very end can only be judged by what follows.
    const last = text.at(-1);
    if (last === '"' || last === "\r") {
      this.#held = last;
      text = text.slice(0, -1);
    }
    this.#read(text);
  }

  /**
   * @returns {Table}
   * @throws {CsvError}
   */
  end() {
    const rest = this.#held;
    this.#held = "";
    if (!this.#separator) this.#separator = guessSeparator(rest);
    this.#read(rest === "\r" ? "\n" : rest);
    if (this.#quoted) throw new CsvError("a quote is opened here and never closed", this.#recordLine);
    if (this.#cell || this.#record.length || this.#wasQuoted) this.#endRecord();
    if (!this.#columns.length) throw new CsvError("The file has no header line.");
    return { columns: this.#columns, rows: typed(this.#columns.length, this.#rows) };
  }

  /** @param {string} text */
  #read(text) {
    for (let i = 0; i < text.length; i++) {
      const char = text[i];
      if (this.#quoted) {
        if (char === '"' && text[i + 1] === '"') {
          this.#cell += '"';
          i++;
        } else if (char === '"') this.#quoted = false;
        else {
          if (char === "\n") this.#line++;
          this.#cell += char;
        }
      } else if (char === '"' && this.#cell === "" && !this.#wasQuoted) this.#quoted = this.#wasQuoted = true;
      else if (char === this.#separator) this.#endCell();
      else if (char === "\n" || char === "\r") {
        if (char === "\r" && text[i + 1] === "\n") i++;
        this.#endRecord();
        this.#line++;
        this.#recordLine = this.#line;
      } else this.#cell += char;
      if (this.#cell.length > MAX_CELL_LENGTH) {
        throw new CsvError(`a cell has more than ${MAX_CELL_LENGTH.toLocaleString("en")} characters`, this.#recordLine);
      }
    }
  }

  #endCell() {
    this.#record.push(this.#wasQuoted ? this.#cell : this.#cell.trim());
    this.#cell = "";
    this.#wasQuoted = false;
  }

  #endRecord() {
    this.#endCell();
    const record = this.#record;
    this.#record = [];
    if (record.length === 1 && record[0] === "") return; // an empty line
    if (!this.#columns.length) {
      if (record.length > MAX_COLUMNS) {
        throw new CsvError(`${record.length} columns; a table may have ${MAX_COLUMNS}`, this.#recordLine);
      }
      this.#columns = record.map((name, i) => name.trim() || `Column ${i + 1}`);
      return;
    }
    const width = this.#columns.length;
    while (record.length > width && record.at(-1) === "") record.pop();
    if (record.length > width) {
      throw new CsvError(`${record.length} cells, but the header names ${width}`, this.#recordLine);
    }
    while (record.length < width) record.push("");
    if (this.#rows.length === MAX_ROWS) {
      throw new CsvError(`A table may have ${MAX_ROWS.toLocaleString("en")} rows; this file has more.`);
    }
    this.#rows.push(record);
  }
}

/**
 * @param {string} text
 * @returns {Table}
 * @throws {CsvError}
 */
export function parseCsv(text) {
  const reader = new CsvReader();
  reader.push(text);
  return reader.end();
}

/**
 * The separator that occurs most often outside quotes in the first line; a character of no file when none does.
 * @param {string} text
 */
function guessSeparator(text) {
  const counts = new Map(SEPARATORS.map((separator) => [separator, 0]));
  let quoted = false;
  for (const char of text) {
    if (char === '"') quoted = !quoted;
    else if (!quoted && (char === "\n" || char === "\r")) break;
    else if (!quoted && counts.has(char)) counts.set(char, (counts.get(char) ?? 0) + 1);
  }
  const [separator, count] = [...counts].reduce((best, next) => (next[1] > best[1] ? next : best));
  return count ? separator : "\0";
}

/**
 * Make numbers of the columns that hold nothing else and are written alike: `39.90` would become `39.9` as a number,
 * and `98` beside `120.5` would be shown as `98.0`. All else stays text.
 * @param {number} width
 * @param {string[][]} rows
 * @returns {Cell[][]}
 */
function typed(width, rows) {
  const numeric = Array.from({ length: width }, (_, i) => {
    const filled = rows.map((row) => row[i]).filter((cell) => cell !== "");
    return filled.length > 0 && filled.every((cell) => isKept(cell) && decimals(cell) === decimals(filled[0]));
  });
  return rows.map((row) => row.map((cell, i) => (cell === "" ? null : numeric[i] ? Number(cell) : cell)));
}

/** @param {string} cell */
function isKept(cell) {
  return NUMBER.test(cell) && String(Number(cell)) === cell;
}

/** @param {string} cell */
function decimals(cell) {
  return cell.split(".")[1]?.length ?? 0;
}
