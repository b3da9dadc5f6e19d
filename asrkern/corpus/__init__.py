"""Corpora transcribed by several processes or machines: one row for each entry of a manifest, whatever dies.

``job``     the way from a manifest to the rows: what is left to do, what was lost, what is wrong
``plan``    entries as jobs, in batches of like lengths
``worker``  a batch of jobs to rows
``local``   workers that are processes of this machine
``cluster`` workers that are actors of Ray Data
``rows``    the file of rows, which a job goes on with
``parquet`` the same rows as one table

See docs/corpus.md.
"""

from asrkern.corpus.cluster import RayEngine
from asrkern.corpus.job import transcribe_corpus
from asrkern.corpus.local import LocalEngine
from asrkern.corpus.parquet import write_parquet
from asrkern.corpus.worker import Worker

__all__ = ["LocalEngine", "RayEngine", "Worker", "transcribe_corpus", "write_parquet"]
