"""Messages, dead letters and events as JSON."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from rowvec.qstash_dev.messages import Answer, DeadLetter, Event, Message
from rowvec.qstash_dev.options import Given, Headers, Options, canonical

REDACTED = "REDACTED"


def milliseconds(moment: float) -> int:
    """Return unix seconds as unix milliseconds."""
    return int(moment * 1000)


def show_message(message: Message) -> dict[str, Any]:
    """Return a message as `GET /v2/messages/{id}` has it."""
    return known(
        messageId=message.id,
        url=message.url,
        topicName=message.group,
        endpointName=message.endpoint,
        queueName=message.queue,
        scheduleId=message.schedule_id,
        maxRetries=message.options.retries,
        notBefore=milliseconds(message.not_before),
        createdAt=milliseconds(message.created_at),
        callerIP=message.caller_ip,
        **show_body("body", message.body),
        **show_options(message.options),
    )


def show_options(options: Options) -> dict[str, Any]:
    """Return what messages and schedules have in common."""
    flow = options.flow
    return known(
        method=options.method,
        header=_lists(options.headers),
        callback=options.callback,
        callbackHeader=_forwarded(options.callback_given),
        failureCallback=options.failure_callback,
        failureCallbackHeader=_forwarded(options.failure_callback_given),
        retryDelayExpression=options.retry_delay,
        flowControlKey=flow and flow.key,
        parallelism=flow and flow.parallelism,
        rate=flow and flow.rate,
        period=int(flow.period) if flow and flow.rate else None,
        label=options.labels[0] if options.labels else None,
        labels=list(options.labels) or None,
    )


def show_dead_letter(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter: its message, and the answer to the last attempt if there was one."""
    answered = letter.answer.status is not None
    return show_message(letter.message) | known(
        dlqId=letter.id,
        responseStatus=letter.answer.status,
        responseHeader=_lists(letter.answer.headers) if answered else None,
        **(show_body("responseBody", letter.answer.body) if answered else {}),
    )


def show_event(event: Event) -> dict[str, Any]:
    """Return a line of the log, without what was to be kept out of it."""
    message, answer = event.message, event.answer or Answer(None)
    shown = show_message(message)
    for name in ("bodyBase64", "retryDelayExpression", "createdAt", "notBefore"):
        shown.pop(name, None)
    return shown | known(
        time=milliseconds(event.at),
        state=event.step.value,
        error=answer.error or None,
        nextDeliveryTime=event.next_at and milliseconds(event.next_at),
        body=REDACTED if "body" in message.options.redact else _base64(message.body),
        header=_redacted(message.options),
        callbackHeaders=shown.pop("callbackHeader", None),
        failureCallbackHeaders=shown.pop("failureCallbackHeader", None),
        timeout=message.options.timeout and milliseconds(message.options.timeout),
        retryDelayExpr=message.options.retry_delay,
        responseStatus=answer.status,
        responseHeader=_lists(answer.headers) or None,
        responseBody=_base64(answer.body) if answer.status is not None else None,
    )


def callback_body(message: Message, answer: Answer, retried: int, dead_letter: str | None) -> bytes:
    """Return what is told of an attempt; with the id of a dead letter, that it was the last."""
    told = known(
        status=answer.status or 0,
        header=_lists(answer.headers),
        body=_base64(answer.body),
        retried=retried,
        maxRetries=message.options.retries,
        sourceMessageId=message.id,
        topicName=message.group,
        endpointName=message.endpoint,
        url=message.url,
        method=message.options.method,
        sourceHeader=_lists(message.options.headers),
        sourceBody=_base64(message.body),
        notBefore=milliseconds(message.not_before),
        createdAt=milliseconds(message.created_at),
        scheduleId=message.schedule_id,
        callerIP=message.caller_ip,
        dlqId=dead_letter,
    )
    return orjson.dumps(told)


def show_body(name: str, body: bytes) -> dict[str, str]:
    """Return a body by this name as text, or by `...Base64` if it is none; an empty one is left out."""
    if not body:
        return {}
    try:
        return {name: body.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": _base64(body)}


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _lists(headers: Headers) -> dict[str, list[str]]:
    return {canonical(name): list(values) for name, values in headers.items()}


def _forwarded(given: Given) -> dict[str, list[str]] | None:
    prefix = "upstash-forward-"
    found = {name.removeprefix(prefix): values for name, values in given.items() if name.startswith(prefix)}
    return _lists(found) or None


def _redacted(options: Options) -> dict[str, list[str]]:
    everything = bool(options.redact & {"header", "headers"})
    hidden = {canonical(field[7:-1]) for field in options.redact if field.startswith("header[")}
    shown = _lists(options.headers)
    return {name: [REDACTED] if everything or name in hidden else values for name, values in shown.items()}


def known(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - values of JSON
    """Return the values that there are: JSON leaves out what there is not."""
    return {name: value for name, value in values.items() if value is not None}
