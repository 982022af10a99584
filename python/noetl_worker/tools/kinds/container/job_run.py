"""A Kubernetes Job of this worker, from its creation to its end, for the kinds `container` and `script`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio

from noetl_worker.errors import ToolError
from noetl_worker.models import backoff
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.container import allowance
from noetl_worker.tools.kinds.container.cluster import GONE, Cluster
from noetl_worker.tools.kinds.container.container_job import (
    CONTAINER_NAME,
    JobEnd,
    PodState,
    job_end,
    pod_state,
    with_owner,
)
from noetl_worker.tools.process.shortage import before_any_effect


class JobRun:
    """Runs one Job: creates the Job, polls until the Job ends, reads the output. Log events and errors name `kind`, the
    tool's kind."""

    def __init__(self, kind: str, cluster: Cluster, name: str, context: ToolContext) -> None:
        self._kind, self._cluster, self._context, self.name = kind, cluster, context, name
        self.status: Mapping[str, Any] = {}
        self.pod = PodState()

    async def create(
        self, job: Mapping[str, JsonValue], beside: Mapping[str, Mapping[str, JsonValue]]
    ) -> Mapping[str, Any]:
        """Create the Job unless it exists, and then the ConfigMap and Secret that the Job's pod waits for. Return the
        Job.

        If an object cannot be created, delete the Job.

        Args:
            beside: manifests of the ConfigMap and Secret, by resource (`configmaps`, `secrets`).

        Raises:
            ConfigurationError: the operator does not allow a namespace, service account or Secret that the Job uses.
        """
        allowance.check(self._kind, job, beside, self._context.settings)
        created: Mapping[str, Any] = {}
        try:
            created = await self._cluster.create(job)
            with before_any_effect("to connect to the cluster"):
                for resource, manifest in beside.items():
                    await self._cluster.create_beside(resource, with_owner(manifest, created))
        except asyncio.CancelledError:  # the Job may exist all the same
            await self.abandon()
            raise
        except BaseException:
            if created:
                await self.delete()
            raise
        self._context.logger.info(
            f"{self._kind}_job_created", job=self.name, namespace=created["metadata"].get("namespace")
        )
        return created

    async def ended(
        self, timeout_s: float, first_poll_s: float, most_poll_s: float, max_log_bytes: int
    ) -> tuple[JobEnd, str | None]:
        """Wait until the Job ends. Return how the Job ended, and the first `max_log_bytes` of the container's output.

        Delete a Job that has not ended after `timeout_s`.
        """
        try:
            # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives at the end
            with self._context.worker.waiting(), anyio.fail_after(timeout_s):
                end = await self._end(first_poll_s, most_poll_s)
            return end, await self._output(max_log_bytes)
        except TimeoutError:
            try:
                output = await self._output(max_log_bytes)
            finally:  # fetching the output from a slow cluster may outlast the command's time
                await self.delete()
            return JobEnd("timeout", self.pod.reason, self.pod.message), output
        except asyncio.CancelledError:
            await self.abandon()
            raise

    async def _end(self, first_poll_s: float, most_poll_s: float) -> JobEnd:
        """Poll the Job until it has ended, and return how it ended. After a retryable failure, such as a lost
        connection, log a warning and poll again."""
        tries = 0
        while True:
            try:
                job = await self._cluster.job(self.name)
                self.pod = pod_state(await self._cluster.pods(self.name))
            except ToolError as error:
                if error.code == GONE:
                    raise ToolError(
                        f"Job {self.name} was deleted from outside: run the step again", kind="process"
                    ) from error
                if not error.retryable:
                    raise
                advice = "the worker polls again; if this warning repeats, check that the Kubernetes API is reachable"
                self._context.logger.warning(f"{self._kind}_status", job=self.name, problem=str(error), advice=advice)
            else:
                self.status = fields_of(job.get("status"))
                if (ended := job_end(job)) is not None:
                    return ended
                if self.pod.never_starts:
                    return JobEnd("failed", self.pod.reason, self.pod.message)
            tries += 1
            await asyncio.sleep(backoff.delay_s(tries, first_poll_s, most_poll_s, jitter=0.0))

    async def _output(self, max_bytes: int) -> str | None:
        """Return the output of the newest pod, at most `max_bytes`. Return None if no container started. If the output
        cannot be read, log a warning and return None."""
        if self.pod.name is None or self.pod.never_starts:
            return None
        try:
            return await self._cluster.log(self.pod.name, CONTAINER_NAME, max_bytes)
        except ToolError as error:
            advice = f"read the output in the Job's namespace: `kubectl logs {self.pod.name}`"
            self._context.logger.warning(f"{self._kind}_log", pod=self.pod.name, problem=str(error), advice=advice)
            return None

    def failure_text(self, end: JobEnd) -> str:
        code = self.pod.exit_code
        given = (self.pod.reason, self.pod.message, end.reason, end.message)
        causes = [cause for cause in given if cause and cause != "Error"]
        text = f"Job {self.name} failed" + ("" if code is None else f": exit code {code}")
        return f"{text} ({'; '.join(dict.fromkeys(causes))})" if causes else text

    async def abandon(self) -> None:
        """Delete the Job because its command was stopped. But if the worker is shutting down, leave the Job running:
        the redelivered command waits for this Job."""
        if self._context.stop.reason != "shutdown":  # after a shutdown the command is redelivered, and finds its Job
            await self.delete()

    async def delete(self) -> None:
        if (problem := await self._cluster.delete_whatever_comes(self.name)) is not None:
            advice = f"delete the Job in the Job's namespace: `kubectl delete job {self.name}`"
            self._context.logger.warning(f"{self._kind}_not_deleted", job=self.name, problem=problem, advice=advice)
