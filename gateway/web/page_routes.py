"""The page at /, where a person can try the model."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "page"
# Load nothing from elsewhere and run no script but the page's own, whatever a reply contains.
POLICY = "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def add_page(app: FastAPI) -> None:
    """Serve the page and its files."""
    app.mount("/page", StaticFiles(directory=FOLDER))

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers={"Content-Security-Policy": POLICY})
