"""What shops export: files (delimited, jsonl, parquet, sheet, feed) and layouts (google, shopify, woocommerce)."""
