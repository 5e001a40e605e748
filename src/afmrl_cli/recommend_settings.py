"""Settings of recommendation: the keys of `[recommend]`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .section import Names, Section


class InteractionColumns(Section):
    """Which column of the interactions holds what; an empty list means: find it by its common names."""

    customer: Names = Field([], description="Column with the customer's number or e-mail address; stored hashed.")
    item: Names = Field([], description="Columns with the item's id, SKU or product number, the surest first.")
    time: Names = Field([], description="Column with the time.")
    event: Names = Field([], description="Column that says what happened: view, purchase, return.")
    quantity: Names = Field([], description="Column with the quantity; negative ones are returns.")
    order: Names = Field([], description="Column with the order's number, which joins the rows of an order.")
    status: Names = Field([], description="Column with the order's status: refunded, cancelled.")


class RecommendSettings(Section):
    """Recommendation: interactions of customers with the catalog's products."""

    interactions: Names = Field(
        [],
        description="Files with customer, item and time, or order exports, relative to this folder; empty: "
        "interactions.csv (.tsv, .jsonl, .parquet, .xlsx) where there is one.",
    )
    columns: InteractionColumns = InteractionColumns()
    timezone: str = Field("UTC", description="Zone of times that name none, such as Europe/Berlin.")
    day_order: Literal["auto", "day-first", "month-first"] = Field(
        "auto", description="How 03/04/2024 is read; auto: as the whole column shows."
    )
    most_events: int = Field(
        0,
        ge=0,
        description="Customers with more events are left out as bots; 0: a hundred times the median customer's, at "
        "least 500.",
    )
    split: Literal["time", "last"] = Field(
        "time",
        description="time: one date for all customers; last: each customer's last ones, which leaks the others' future "
        "into training.",
    )
    validation: float = Field(0.1, ge=0, lt=1, description="Share of the interactions, the last ones before the test.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of the interactions, the last ones.")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be below 1")
        return self
