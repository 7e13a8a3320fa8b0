-- What a worker may write of its running jobs; step.lua lists the verbs and what they take.
local function retry(job, err, delay_ms)
  call('HSET', P .. ':x:' .. job.id, 'er', err)
  enter_due(job, 'retrying', NOW + math.floor(delay_ms),
    '{"error":' .. err .. ',"delay_s":' .. seconds(delay_ms) .. ',"next_attempt":' .. int(job.a + 1) .. '}')
end

local function keep_usage(job, usage)
  if usage and usage ~= '' then set(job, 'us', usage) end
end

local VERBS = {
  progress = function(job, data)
    emit(job, 'progress', data)
    if job.pa then tell_flow(job, data) end
  end,
  log = function(job, data) emit(job, 'log', data) end,
  output = function(job, data) emit(job, 'output', data) end,
  complete = function(job, data, usage)
    keep_usage(job, usage)
    said_of_dependency = 'ok'
    complete(job, data)
  end,
  retry = function(job, data, more)
    if job.cb ~= '' then return cancel_asked(job) end
    keep_usage(job, more.usage)
    said_of_dependency = 'failed'
    set(job, 't', job.t + 1)
    if job.t >= job.ma then fail(job, data, true, more.stack) else retry(job, data, more.delay_ms) end
  end,
  fail = function(job, data, more)
    keep_usage(job, more.usage)
    -- A failure that its author chose says nothing of what the job depends on.
    if more.dead then said_of_dependency = 'failed' end
    set(job, 't', job.t + 1)
    fail(job, data, more.dead, more.stack)
  end,
  cancel = function(job, data)
    if job.cb == '' then
      emit(job, 'cancelling', '{"by":null}')
      cancel_now(job, 'null', data)
    else
      cancel_now(job, job.cb, job.cr ~= '' and job.cr or data)
    end
  end,
  release = function(job)
    if job.cb ~= '' then return cancel_asked(job) end
    enter_queue(job, ',"reason":"shutdown"', true)
  end,
}

-- What stands behind the data of a write: text, or for retry and fail a table; nothing when it is malformed.
local function read_extra(verb, text)
  if verb ~= 'retry' and verb ~= 'fail' then return text end
  local is_read, more = pcall(cjson.decode, text)
  if not is_read or type(more) ~= 'table' or verb == 'retry' and type(more.delay_ms) ~= 'number' then return nil end
  if more.usage then more.usage = cjson.encode(more.usage) end
  return more
end
