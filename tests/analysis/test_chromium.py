"""The report in a browser: on a desk and on a phone."""

import pytest
from chromium import needs_chromium, tab

from analysis import shipped
from analysis.__main__ import main


@pytest.mark.slow
@needs_chromium
def test_the_report_shows_all_its_pictures_fits_the_screen_and_has_no_errors(tmp_path):
    main(['report', str(shipped()), '--out', str(tmp_path / 'out')])
    page = tmp_path / 'out' / 'report.html'
    with tab(tmp_path / 'profile') as shown:
        for width in (390, 1280):
            shown.open(page, width)
            assert shown.value('document.images.length') >= 8
            assert shown.broken_images() == []
            assert shown.value('document.documentElement.scrollWidth') <= width
            assert shown.value('getComputedStyle(document.body).fontSize') == '16px'
        assert shown.mistakes() == []
        assert [url for url in shown.requests() if not url.startswith('data:')] == 2 * [page.as_uri()]
        page.write_text(
            page.read_text().replace('base64,', 'base64,AAAA', 1).replace('</main>', '<script>x</script></main>')
        )
        shown.open(page, 390)  # and what is wrong is seen
        assert len(shown.broken_images()) == 1
        assert shown.mistakes()
