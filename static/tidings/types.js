/**
 * The shapes that cross the wire, as JSDoc types. Nothing here runs.
 *
 * @typedef {"scheduled" | "queued" | "running" | "retrying" | "waiting_input" | "completed" | "failed" | "cancelled"} JobState
 *
 * @typedef {object} Progress
 * @property {number | null} [percent] 0–100
 * @property {string | null} [message]
 * @property {number | null} [current]
 * @property {number | null} [total]
 * @property {string | null} [step]
 * @property {number | null} [eta_s]
 * @property {Record<string, unknown> | null} [meta]
 *
 * @typedef {{code: string, type: string, message: string}} JobError
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {string} type
 * @property {JobState} status
 * @property {Progress | null} [progress]
 * @property {number} attempt
 * @property {string} position where the job's log stood when this was read
 * @property {number | null} [queue_position]
 * @property {number | null} [eta_s]
 * @property {string | null} [waiting_for] what keeps a queued job back besides its turn, such as `paused`
 * @property {boolean} [slow] whether it has run longer than nearly all of its type
 * @property {string} [updated_at]
 * @property {string} [queue]
 * @property {string | null} [concurrency_key]
 * @property {string | null} [expires_at]
 * @property {any} [input]
 * @property {any} [result]
 * @property {string | null} [result_ref] where the result is, when it is too large to be told
 * @property {JobError | null} [error]
 * @property {string[]} [tags]
 * @property {Record<string, unknown>} [metadata]
 * @property {string | null} [retry_of]
 * @property {string | null} [parent] the flow that this job is a step of
 * @property {string | null} [step] the name of the step
 * @property {string | null} [worker]
 * @property {boolean} [cancel_requested]
 * @property {number} [max_attempts]
 * @property {string} [created_at]
 * @property {string | null} [run_at]
 * @property {string | null} [started_at]
 * @property {string | null} [finished_at]
 *
 * @typedef {object} JobEvent one numbered entry of a job's log
 * @property {string} job_id
 * @property {string} epoch
 * @property {number} seq
 * @property {number} [prev]
 * @property {string} kind
 * @property {string} at
 * @property {number} attempt
 * @property {any} data
 *
 * @typedef {object} Answer what a subscribe or a long-poll tells
 * @property {string} position
 * @property {JobEvent[]} events
 * @property {boolean} [done]
 * @property {boolean} [reset]
 * @property {Job | null} [job]
 *
 * @typedef {object} Outcome how a job ended
 * @property {"completed" | "failed" | "cancelled"} status
 * @property {any} [result]
 * @property {string | null} [resultRef] set when the result is too large to be told: fetch it with `Tidings.result`
 * @property {JobError | null} [error]
 * @property {string | null} [reason] why it was cancelled
 * @property {number | null} [durationS]
 *
 * @typedef {object} JobType
 * @property {string} type
 * @property {string} [description]
 * @property {string} [queue]
 * @property {number} [timeout_s]
 * @property {Record<string, any>} input_schema JSON Schema of the input
 *
 * @typedef {object} StoredFile
 * @property {string} id
 * @property {string} name
 * @property {string} media_type
 * @property {number} size_bytes
 * @property {string} url
 *
 * @typedef {object} Problem an RFC 9457 problem document, or the short form that refuses a Socket.IO call
 * @property {string} [code]
 * @property {number} [status]
 * @property {string} [title]
 * @property {string} [detail]
 * @property {string} [request_id]
 * @property {{field: string, code: string, message: string}[]} [errors]
 *
 * @typedef {"live" | "polling" | "offline"} ConnectionState
 */
export {};
