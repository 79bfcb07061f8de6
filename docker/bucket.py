"""Make a bucket where there is none."""
# ruff: noqa: INP001 (a script of the server's image)

import sys

import boto3

address, name = sys.argv[1:]
client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
    client.create_bucket(Bucket=name)
